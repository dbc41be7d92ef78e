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


UNLISTED = ["aws", "oauth"]
"""Where nobody can tell who there is; of `ssh` neither can, and its list knows only what is on it."""


@pytest.fixture
async def ground(kind: str) -> AsyncIterator[Ground]:
    """One kind of target; `static` is a PostgreSQL's."""
    async with GROUNDS[kind]() as found:
        yield found


@pytest.mark.parametrize("kind", sorted(set(GROUNDS) - {"ssh", "static", *UNLISTED}))
async def test_what_is_there_is_seen(nursery: Nursery, ground: Ground, tmp_path: Path) -> None:
    """One that a broker made, whose holder is logged in; one that a stranger made; and then neither."""
    facts = ground.facts()
    case = Case(story="one_secret", points="story.held=kill", folder=str(tmp_path), **facts)
    assert nursery.run(case) == -signal.SIGKILL, why(case)
    (held,) = [note for note in map(json.loads, case.notes.read_text().splitlines()) if note["what"] == "held"]
    user, password = held["user"], held["password"]
    assert await ground.eyes.principals("sj_") == {user: True}
    hands = HANDS[facts["room"]["kind"]](facts["room"], facts["superuser"])
    assert [name for _, name in await ground.eyes.sessions("sj_")] == ([user] if hands.enters else [])
    assert await ground.eyes.opens(user, password)
    assert not await ground.eyes.opens(user, "another")
    assert password.encode() not in ground.eyes.log.read_bytes()
    await hands.plant(GHOST)
    assert set(await ground.eyes.principals("sj_") or ()) == {user, GHOST}
    await hands.remove(GHOST)
    closing = Case(story="closing", folder=str(tmp_path), **facts)
    assert nursery.run(closing) == 0, why(closing)
    assert await ground.eyes.principals("sj_") == {}
    assert await ground.eyes.sessions("sj_") == []
    assert not await ground.eyes.opens(user, password)
    nursery.forget()
    await ground.eyes.close()


@pytest.mark.parametrize("kind", UNLISTED)
async def test_what_was_handed_over_is_seen(nursery: Nursery, ground: Ground, tmp_path: Path) -> None:
    """It opens while it is held, nothing like it does, and it opens no more when everything has ended."""
    facts = ground.facts()
    case = Case(story="one_secret", points="story.held=kill", folder=str(tmp_path), **facts)
    assert nursery.run(case) == -signal.SIGKILL, why(case)
    told = [json.loads(line) for line in case.notes.read_text().splitlines()]
    (note,) = [one for one in told if one["what"] == "secret"]
    assert await ground.eyes.principals("sj_") is None
    assert await ground.eyes.opens(note["user"], note["door"])
    assert not await ground.eyes.opens(note["user"], "another")
    assert not await ground.eyes.opens(note["user"], note["door"][:-9] + "x" * 9)
    said = ground.eyes.log.read_bytes()
    assert not any(secret.encode() in said for secret in (note["password"], *note["others"]))
    closing = Case(story="closing", folder=str(tmp_path), **facts)
    assert nursery.run(closing) == 0, why(closing)
    assert not await ground.eyes.opens(note["user"], note["door"])
    nursery.forget()
    await ground.eyes.close()


@pytest.mark.parametrize("kind", ["kubernetes"])
async def test_what_a_secret_holds_is_seen(ground: Ground) -> None:
    """Those of ours hold nothing, and one that did would stand out."""
    assert list(ground.eyes.clear(b'POST /secrets {"kind": "Secret", "immutable": true}')) == []
    assert list(ground.eyes.clear(b'POST /secrets {"kind": "Secret", "stringData": {"password": "hunter2"}}'))
