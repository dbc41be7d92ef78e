"""Policies and targets of a running `up` are read again when their files change; a bad file changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ca.runtime.clock import SystemClock
from journeys.leading import agent, told
from journeys.orders import orders
from journeys.processes import PATIENCE, Running

ROLE = "orders-db/readonly"
CLOCK = SystemClock()
FORBID = """
@id("freeze")
@reason("nothing is given today")
forbid (principal, action in Action::"credential", resource);
"""


def replace(path: Path, text: str) -> None:
    """By a rename, as an editor does it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


async def said(running: Running, word: str) -> None:
    """Wait until its log has `word`."""
    while word not in running.errors.read_text():
        await CLOCK.sleep(0.02)


async def asked(one: Running, role: str = ROLE) -> Mapping[str, Any]:
    """What asking for a secret comes to; what the Workload API says in between is passed over."""
    await one.say(f"obtain {role}")
    while "svid" in (answer := json.loads(await one.line("{"))):
        pass
    found: Mapping[str, Any] = answer
    return found


async def until(one: Running, role: str, word: str) -> Mapping[str, Any]:
    """Ask until the answer has `word`."""
    while word not in (answer := await asked(one, role)):
        await CLOCK.sleep(0.05)
    return answer


async def test_policies_are_read_again() -> None:
    """A broken file leaves what holds in force and is told; a good one holds within a moment, by SIGHUP too."""
    async with asyncio.timeout(PATIENCE), orders() as house, agent(house.up, "one") as one:
        folder = house.up.places.policies
        await told(one, "open", "task")
        assert "password" in await asked(one)
        replace(folder / "freeze.cedar", "forbid (principal, action, resource) when { principal.no_such };")
        await said(house.up.running, "freeze.cedar")
        assert "password" in await asked(one)
        replace(folder / "freeze.cedar", FORBID)
        refused = await until(one, ROLE, "refused")
        assert (refused["refused"], refused["says"]) == ("refused", "nothing is given today")
        (folder / "freeze.cedar").unlink()
        os.kill(house.up.running.pid, signal.SIGHUP)
        assert "password" in await until(one, ROLE, "password")


async def test_targets_are_read_again() -> None:
    """A role that is written into the folder is there within a moment; a broken file takes none away."""
    async with asyncio.timeout(PATIENCE), orders() as house, agent(house.up, "one") as one:
        await told(one, "open", "task")
        file = house.up.places.state / "targets" / "orders-db.yaml"
        before = file.read_text()
        assert "refused" in await asked(one, "orders-db/second")
        replace(file, before + "  second: 7\n")
        await said(house.up.running, "orders-db.yaml")
        assert "password" in await asked(one)
        again = f"  second:\n    sensitivity: internal\n    engine: {{groups: [{house.room.groups[0]}]}}\n"
        replace(file, before + again)
        assert "password" in await until(one, "orders-db/second", "password")
