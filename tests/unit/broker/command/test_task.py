"""sojourn task and sojourn secret: a task that outlives the command that opened it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from broker.wire.tasks import OpenTask
from fakes.commands import ended, invoke, start
from fakes.doors import PASSWORD

ROLE = "orders-db/readonly"


async def opened(place: Any, *more: str) -> str:
    """A task of five minutes for the one role."""
    said = ("--purpose", "fix invoices", "--lasts", "5m", "--role", ROLE)
    result = await invoke("task", "open", *said, *more, "--json", environment=place.environment)
    assert result.exit_code == 0, result.stderr
    return str(json.loads(result.stdout)["task"])


def key_file(place: Any, task: str) -> Path:
    """Where its key lies."""
    found: Path = place.state / "run" / "tasks" / f"{task}.key"
    return found


async def test_a_task_is_opened_used_shown_and_ended(place: Any) -> None:
    """Four commands, one after the other, by the key in a private file."""
    task = await opened(place)
    assert stat.S_IMODE(key_file(place, task).stat().st_mode) == 0o600
    asked = await invoke("secret", "get", ROLE, "--task", task, "--field", "password", environment=place.environment)
    assert (asked.exit_code, asked.stdout) == (0, f"{PASSWORD}\n")
    shown = await invoke("task", "show", task, environment=place.environment)
    assert "in-use" in shown.stdout
    assert "fix invoices" in shown.stdout
    assert PASSWORD not in shown.stdout
    over = await invoke("task", "end", task, "--words", "done with it", "--wait", environment=place.environment)
    assert (over.exit_code, over.stdout.splitlines()[0]) == (0, f"{task} is done")
    assert "gone" in over.stdout
    assert not key_file(place, task).exists()
    again = await invoke("task", "end", task, environment=place.environment)
    assert again.exit_code == 1
    assert "sojourn task kill" in again.stderr


async def test_the_scope_is_what_was_said(place: Any) -> None:
    """Tools, destinations and a ceiling of one's own."""
    task = await opened(place, "--tool", "mail/*", "--destination", "eu/bank", "--sensitivity", "public")
    told = json.loads((await invoke("task", "show", task, "--json", environment=place.environment)).stdout)
    assert told["task"]["scope"]["tools"] == ["mail/*"]
    assert told["task"]["scope"]["sensitivity"] == "public"
    refused = await invoke("secret", "get", ROLE, "--task", task, environment=place.environment)
    assert refused.exit_code == 1
    assert "outside the task's scope" in refused.stderr


async def test_a_secret_comes_whole_or_as_json(place: Any) -> None:
    """Every field by its name; and an unknown field gives the secret back."""
    task = await opened(place)
    whole = await invoke("secret", "get", ROLE, "--task", task, environment=place.environment)
    assert f"password={PASSWORD}\n" in whole.stdout
    assert "port=5432\n" in whole.stdout
    plain = await invoke("secret", "get", ROLE, "--task", task, "--json", environment=place.environment)
    assert json.loads(plain.stdout)["password"] == PASSWORD
    wrong = await invoke("secret", "get", ROLE, "--task", task, "--field", "x", environment=place.environment)
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    async with place.doors.as_operator() as operator:
        leases = (await operator.leases(task)).items
    assert [one.close_reason for one in leases] == [None, None, "asked"]


async def test_a_terminal_is_refused_unless_said(place: Any) -> None:
    """Nothing is asked for then."""
    task = await opened(place)
    ours, theirs = os.openpty()
    process = await start("secret", "get", ROLE, "--task", task, environment=place.environment, out=theirs)
    code, _, err = await ended(process)
    os.close(theirs)
    os.close(ours)
    assert code == 2
    assert "--show" in err
    async with place.doors.as_operator() as operator:
        assert (await operator.leases(task)).items == []


async def test_a_key_others_may_read_proves_nothing(place: Any) -> None:
    """It is not used."""
    task = await opened(place)
    key_file(place, task).chmod(0o644)
    result = await invoke("task", "show", task, environment=place.environment)
    assert result.exit_code == 1
    assert "mode 0600" in result.stderr


async def test_a_task_that_is_not_opened_leaves_no_key(place: Any) -> None:
    """Refused by the broker, or nobody there."""
    said = ("--purpose", "x", "--lasts", "99h")
    assert (await invoke("task", "open", *said, environment=place.environment)).exit_code == 1
    away = {**place.environment, "SOJOURN_BROKER": "https://127.0.0.1:1"}
    assert (await invoke("task", "open", *said, environment=away)).exit_code == 3
    assert list((place.state / "run" / "tasks").iterdir()) == []


async def test_an_operator_lists_and_kills(place: Any) -> None:
    """Also tasks whose key is elsewhere; the tree is told from the top."""
    async with place.doors.as_agent() as agent:
        top = (await agent.open_task(OpenTask(purpose="whole"))).task.id
        part = (await agent.open_task(OpenTask(purpose="part", parent=top))).task.id
    listed = await invoke("task", "list", environment=place.environment)
    assert top in listed.stdout
    assert part in listed.stdout
    tree = await invoke("task", "tree", top, environment=place.environment)
    assert tree.stdout.splitlines() == [f"{top}  active  whole", f"   └─ {part}  active  part"]
    killed = await invoke("task", "kill", top, "--words", "enough", "--wait", environment=place.environment)
    assert killed.exit_code == 0
    assert (await invoke("task", "list", environment=place.environment)).stdout == "no task lives\n"
    every = json.loads((await invoke("task", "list", "--all", "--json", environment=place.environment)).stdout)
    assert [(one["id"], one["end_reason"]) for one in every] == [(top, "operator"), (part, "parent-ended")]


async def test_what_is_no_id_is_told(place: Any) -> None:
    """Before anybody is asked."""
    for arguments in (("task", "show", "x"), ("task", "kill", "../x"), ("lease", "revoke", "t1")):
        result = await invoke(*arguments, environment=place.environment)
        assert result.exit_code == 1
        assert "id" in result.stderr


async def test_roles_are_listed_with_what_taking_back_means(place: Any) -> None:
    """For whoever may ask, and for an operator."""
    found = await invoke("secret", "list", environment=place.environment)
    assert "no login within 1 s; sessions cut within 1 s" in found.stdout
    named = {name: value for name, value in place.environment.items() if name != "SOJOURN_BROKER"}
    assert ROLE in (await invoke("secret", "list", environment=named)).stdout
