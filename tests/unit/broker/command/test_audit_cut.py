"""sojourn audit verify on a store whose chains were cut in time: it says from where, and sees a cut nobody made."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.loops.retention import Forgetting
from broker.model.retention import Retention
from ca.runtime.database import Transaction
from fakes.commands import invoke

NOTHING = Retention(events=timedelta(0), tasks=timedelta(0), receipts=timedelta(0))
ROLE = "orders-db/readonly"


async def lived_through(place: Any) -> None:
    """A task came and went."""
    said = ("--purpose", "fix invoices", "--lasts", "5m", "--role", ROLE, "--json")
    opened = await invoke("task", "open", *said, environment=place.environment)
    task = json.loads(opened.stdout)["task"]
    await invoke("secret", "get", ROLE, "--task", task, "--field", "password", environment=place.environment)
    ended = await invoke("task", "end", task, "--wait", environment=place.environment)
    assert ended.exit_code == 0, ended.stderr


async def cut(place: Any) -> None:
    """Everything that may be forgotten is."""
    house = place.doors.house
    await house.reap()
    await Forgetting(house.world, NOTHING).tick(house.clock.now())


async def test_what_is_left_verifies_from_its_checkpoint(place: Any, tmp_path: Path) -> None:
    """From the broker, and from an export without one; what was forgotten can be told by neither."""
    await lived_through(place)
    whole = json.loads((await invoke("audit", "verify", "--json", environment=place.environment)).stdout)
    assert whole["cuts"] == []
    await cut(place)
    await lived_through(place)
    export = tmp_path / "audit.jsonl"
    told = await invoke("audit", "verify", "--export", export, "--json", environment=place.environment)
    assert told.exit_code == 0, told.stderr
    found = json.loads(told.stdout)
    (begins,) = found["cuts"]
    assert (begins["number"], found["unbacked"]) == (whole["heads"][0]["number"] - 1, [])
    offline = json.loads((await invoke("audit", "verify", "--from", export, "--json")).stdout)
    assert offline == found
    human = await invoke("audit", "verify", environment=place.environment)
    assert f":{begins['number'] + 1}  after {begins['hash']}" in human.stdout


async def test_a_beginning_cut_off_by_somebody_is_seen(place: Any) -> None:
    """Entries deleted, and a checkpoint moved over the hole: the receipt of the last cut names another one."""
    await lived_through(place)
    await cut(place)
    await lived_through(place)

    async def forge(tx: Transaction) -> None:
        (first,) = await tx.fetch("SELECT number, hash FROM receipts ORDER BY number LIMIT 1")
        await tx.execute("DELETE FROM receipts WHERE number = $1", first["number"])
        await tx.execute("UPDATE checkpoints SET number = $1, hash = $2", first["number"], first["hash"])

    await place.doors.house.world.database.write(forge)
    told = await invoke("audit", "verify", environment=place.environment)
    assert (told.exit_code, "is not where a receipt says the chain was cut" in told.stderr) == (1, True)


async def test_a_hole_at_the_beginning_is_seen(place: Any) -> None:
    """Deleted without a word: the first that is left does not follow the checkpoint."""
    await lived_through(place)
    await cut(place)
    await lived_through(place)
    await place.doors.house.world.database.write(
        lambda tx: tx.execute("DELETE FROM receipts WHERE number = (SELECT MIN(number) FROM receipts)")
    )
    told = await invoke("audit", "verify", environment=place.environment)
    assert (told.exit_code, "missing" in told.stderr) == (1, True)
