"""The oracle's eyes on each kind of target: they see a principal, its session and its door, and when each is gone."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from faults.case import Case
from faults.ground import GROUNDS, Ground
from faults.hands import HANDS
from faults.nursery import Nursery, why

GHOST = "sj_nobody00_ghost"


@pytest.fixture(params=sorted(set(GROUNDS) - {"ssh", "static"}))
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """One kind of target, where somebody can tell who there is; `static` is a PostgreSQL's."""
    async with GROUNDS[request.param]() as found:
        yield found


async def test_what_is_there_is_seen(nursery: Nursery, ground: Ground, tmp_path: Path) -> None:
    """One that a broker made, whose holder is logged in; one that a stranger made; and then neither."""
    facts = ground.facts()
    case = Case(story="one_secret", points="story.held=kill", folder=str(tmp_path), **facts)
    assert nursery.run(case) == -signal.SIGKILL, why(case)
    (held,) = [note for note in map(json.loads, case.notes.read_text().splitlines()) if note["what"] == "held"]
    user, password = held["user"], held["password"]
    assert await ground.eyes.principals("sj_") == {user: True}
    assert [name for _, name in await ground.eyes.sessions("sj_")] == [user]
    assert await ground.eyes.opens(user, password)
    assert not await ground.eyes.opens(user, "another")
    assert password.encode() not in ground.eyes.log.read_bytes()
    hands = HANDS[facts["room"]["kind"]](facts["room"], facts["superuser"])
    await hands.plant(GHOST)
    assert set(await ground.eyes.principals("sj_") or ()) == {user, GHOST}
    await hands.remove(GHOST)
    closing = Case(story="closing", folder=str(tmp_path), **facts)
    assert nursery.run(closing) == 0, why(closing)
    assert await ground.eyes.principals("sj_") == {}
    assert await ground.eyes.sessions("sj_") == []
    assert not await ground.eyes.opens(user, password)
    nursery.forget()
