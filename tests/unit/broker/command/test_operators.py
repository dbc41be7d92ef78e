"""What operators ask on the broker's socket: status, leases, the audit, operators, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from broker.engines.protocol import Finding
from broker.model.scope import Sensitivity
from broker.wire.credentials import AskCredential
from broker.wire.tasks import OpenTask, ScopeBody
from fakes.commands import invoke
from fakes.doors import CLOCK, PASSWORD
from fakes.pki import SelfSigned

ROLE = "orders-db/readonly"


async def given(place: Any) -> tuple[str, str]:
    """A live task and its lease."""
    async with place.doors.as_agent() as agent:
        scope = ScopeBody(roles=[ROLE], sensitivity=Sensitivity.INTERNAL)
        task = (await agent.open_task(OpenTask(purpose="to see", scope=scope))).task.id
        lease = (await agent.ask(task, AskCredential(role=ROLE))).lease.id
        await agent.ack(lease)
    return task, lease


async def run(place: Any, *arguments: object) -> Any:
    """One command that ends well."""
    result = await invoke(*arguments, environment=place.environment)
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output
    return result


async def test_status_is_one_screen(place: Any) -> None:
    """Targets, live tasks, open leases, what is overdue, the head of the audit."""
    task, lease = await given(place)
    shown = (await run(place, "status")).stdout
    for word in ("orders-db", task, lease, "nothing is overdue", "audit"):
        assert word in shown
    told = json.loads((await run(place, "status", "--json")).stdout)
    assert told["up"] is None
    assert [one["id"] for one in told["leases"]] == [lease]
    assert told["overdue"] == []
    assert told["audit"][0]["number"] > 0


async def test_status_of_nothing_is_exit_code_3(tmp_path: Path) -> None:
    """With what to do."""
    result = await invoke("status", environment={"SOJOURN_STATE": str(tmp_path)})
    assert result.exit_code == 3
    assert "sojourn up" in result.stderr


async def test_a_lease_is_listed_and_revoked(place: Any) -> None:
    """Its task goes on."""
    task, lease = await given(place)
    assert lease in (await run(place, "lease", "list", "--open")).stdout
    assert lease in (await run(place, "lease", "list", "--task", task)).stdout
    assert "revok" in (await run(place, "lease", "revoke", lease)).stdout
    told = json.loads((await run(place, "lease", "list", "--json")).stdout)
    assert told[0]["close_reason"] == "operator"
    assert task in (await run(place, "task", "list")).stdout


async def test_the_audit_is_read_verified_and_kept(place: Any, tmp_path: Path) -> None:
    """An export is verified without a broker, and an edit in it is named."""
    await given(place)
    assert "lease.activated" in (await run(place, "audit", "tail")).stdout
    assert len(json.loads((await run(place, "audit", "tail", "-n", "2", "--json")).stdout)) == 2
    export = tmp_path / "audit.jsonl"
    told = json.loads((await run(place, "audit", "verify", "--export", export, "--json")).stdout)
    assert told["heads"][0]["number"] == told["entries"]
    assert export.stat().st_mode & 0o777 == 0o600
    assert json.loads((await invoke("audit", "verify", "--from", export, "--json")).stdout)["heads"] == told["heads"]
    export.write_text(export.read_text().replace("to see", "to sea"))
    broken = await invoke("audit", "verify", "--from", export)
    assert broken.exit_code == 1
    assert "was edited" in broken.stderr


async def test_a_store_that_was_written_by_hand_is_noticed(place: Any) -> None:
    """The first bad entry is named."""
    await given(place)

    async def edit(tx: Any) -> None:
        await tx.execute("UPDATE receipts SET actor = 'nobody' WHERE number = 2")

    await place.doors.house.world.database.write(edit)
    result = await invoke("audit", "verify", environment=place.environment)
    assert result.exit_code == 1
    assert "entry 2 of" in result.stderr


async def test_operators_are_added_listed_and_removed(place: Any, tmp_path: Path) -> None:
    """By their certificate; a file with a key in it is refused."""
    mine = SelfSigned.make("ada", CLOCK.now())
    certificate, both = tmp_path / "ada.pem", tmp_path / "both.pem"
    certificate.write_bytes(mine.chain_pem())
    both.write_bytes(mine.chain_pem() + mine.key_pem())
    await run(place, "operator", "add", "ada", "--certificate", certificate, "--verb", "tasks:read")
    assert "tasks:read" in (await run(place, "operator", "list")).stdout
    await run(place, "operator", "remove", "ada")
    assert "no operator" in (await run(place, "operator", "list")).stdout
    refused = await invoke(
        "operator", "add", "eve", "--certificate", both, "--verb", "tasks:read", environment=place.environment
    )
    assert refused.exit_code == 2
    assert "private key" in refused.stderr


async def test_the_doctor_looks_at_the_machine_and_at_each_target(place: Any) -> None:
    """--strict turns a finding into an exit code."""
    assert "orders-db" in (await run(place, "doctor")).stdout
    place.doors.house.engine.findings = (Finding(name="fsync", well=False, detail="off", fix="fsync = on"),)
    result = await invoke("doctor", "--strict", "--json", environment=place.environment)
    assert result.exit_code == 1
    assert "fsync = on" in [one["to_do"] for one in json.loads(result.stdout)]
