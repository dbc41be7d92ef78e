"""Endings outlive any outage: PostgreSQL loses power at a create, at an ending and before the broker starts."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from faults.nursery import Nursery, why
from faults.yard import Yard
from servers.postgres import postgres

WAITING = "story.waiting=stop"


@pytest.fixture
async def doomed(nursery: Nursery, tmp_path: Path) -> AsyncIterator[Yard]:
    """A server of this test's own, to be killed."""
    async with postgres(options=("log_min_messages=error",), fresh=True) as server, server.room() as room:
        yield Yard(nursery, server, room, tmp_path)


@pytest.mark.parametrize("point", ["obtain.create.before=stop@2", "withdraw.end_access.before=stop"])
async def test_the_target_dies_under_a_broker(doomed: Yard, point: str) -> None:
    """The task ends all the same, and when the target is back nothing is left of it."""
    case = await doomed.case("outage", f"{point},{WAITING}")
    doomed.nursery.begin(case)
    doomed.nursery.until_stopped()
    doomed.server.stop(signal.SIGKILL)
    doomed.nursery.signal(signal.SIGCONT)
    doomed.nursery.until_stopped()
    doomed.server.start()
    doomed.nursery.signal(signal.SIGCONT)
    assert doomed.nursery.ended() == 0, why(case)
    assert await doomed.ask(case, after_a_minute=True) == []
    await doomed.recovers(case)


@pytest.mark.parametrize("point", ["obtain.create.after", "obtain.activate.after", "withdraw.begin.after"])
async def test_the_target_is_dead_when_a_broker_starts(doomed: Yard, point: str) -> None:
    """A broker was killed, then its target; the next one starts, ends what it finds, and waits for the target."""
    case = await doomed.case("outage", f"{point}=kill")
    assert doomed.nursery.run(case) == -signal.SIGKILL, why(case)
    doomed.server.stop(signal.SIGKILL)
    doomed.nursery.begin(doomed.next_life(case, "finish", points=WAITING))
    doomed.nursery.until_stopped()
    doomed.server.start()
    doomed.nursery.signal(signal.SIGCONT)
    assert doomed.nursery.ended() == 0, why(case)
    assert await doomed.ask(case, after_a_minute=True) == []
    await doomed.recovers(case)
