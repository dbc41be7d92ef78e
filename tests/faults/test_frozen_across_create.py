"""A broker that is frozen, or dead, while its create is on its way: it comes late and is refused, or is destroyed.

SIGSTOP and SIGCONT of the real process, a lock that holds the statement up inside the server, and a wire that holds it
up before the server. Whoever waits here waits for the state of a process or for what the server shows.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from ca.runtime.clock import SystemClock
from ca.runtime.database import StoreLocked
from ca.runtime.sqlite import open_sqlite
from faults.case import Case
from faults.nursery import why
from faults.yard import Yard

SHORT = 2.0
"""Seconds after which the target refuses a create, in those tests that wait for it to pass."""

HELD_UP = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%CREATE ROLE%'
AND pid <> pg_backend_pid()"""
THERE = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname::text, 'sj_')"
PASSED = "SELECT pg_sleep(GREATEST(0, extract(epoch FROM $1::timestamptz - clock_timestamp())))"
BEFORE = "obtain.create.before=stop"


def outcome(case: Case) -> dict[str, Any]:
    """What the agent was told."""
    notes = [json.loads(line) for line in case.notes.read_text().splitlines()]
    (found,) = [note for note in notes if note["what"] == "outcome"]
    return dict(found)


@dataclass
class Owner:
    """The server's owner, who sees everything and can hold every CREATE ROLE up."""

    eye: Any
    hand: Any

    async def sees(self, query: str, count: int) -> None:
        """Wait until `query` counts that many."""
        clock = SystemClock()
        async with asyncio.timeout(60):
            while await self.eye.fetchval(query) != count:
                await clock.sleep(0.005)

    async def lock(self) -> None:
        await self.hand.execute("BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE MODE")

    async def release(self) -> None:
        await self.hand.execute("ROLLBACK")


@asynccontextmanager
async def watching(yard: Yard) -> AsyncIterator[Owner]:
    """Logged in before anything is held up."""
    eye, hand = await yard.server.connect(), await yard.server.connect()
    try:
        yield Owner(eye, hand)
    finally:
        await hand.close()
        await eye.close()


async def held_up(yard: Yard, case: Case, owner: Owner) -> None:
    """Let the broker come to its create, and the server to no more than the beginning of it."""
    yard.nursery.begin(case)
    yard.nursery.until_stopped()
    await owner.lock()
    yard.nursery.signal(signal.SIGCONT)
    await owner.sees(HELD_UP, 1)


async def test_frozen_before_it_is_sent_and_thawed_in_time(yard: Yard) -> None:
    """Frozen, it holds its store against everybody; thawed, it goes on as if nothing had been."""
    case = await yard.case("one_secret", BEFORE)
    yard.nursery.begin(case)
    yard.nursery.until_stopped()
    with pytest.raises(StoreLocked):
        async with open_sqlite(case.store / "broker.db"):
            pass
    assert await yard.roles() == []
    yard.nursery.signal(signal.SIGCONT)
    assert yard.nursery.ended() == 0, why(case)
    assert outcome(case)["of"] == "obtained"
    await yard.recovers(case)


async def test_frozen_before_it_is_sent_and_thawed_too_late(yard: Yard) -> None:
    """The statement carries its deadline, and the target's clock judges it: nothing is made, not even for a moment."""
    case = await yard.case("one_secret", BEFORE, deadline=SHORT)
    yard.nursery.begin(case)
    yard.nursery.until_stopped()
    connection = await yard.server.connect()
    end = await connection.fetchval("SELECT clock_timestamp() + make_interval(secs => $1)", SHORT)
    await connection.fetchval(PASSED, end)
    await connection.close()
    yard.nursery.signal(signal.SIGCONT)
    assert yard.nursery.ended() == 0, why(case)
    assert "after its deadline" in outcome(case)["said"]
    assert "ERROR:  too late" in yard.logged()
    assert await yard.roles() == []
    await yard.recovers(case)


@pytest.mark.parametrize("fate", [signal.SIGCONT, signal.SIGKILL])
async def test_frozen_while_the_server_is_at_it(yard: Yard, fate: signal.Signals) -> None:
    """The role comes to be while its broker can't hear of it; thawed it may go on, dead it is undone by the next."""
    case = await yard.case("one_secret", BEFORE)
    async with watching(yard) as owner:
        await held_up(yard, case, owner)
        yard.nursery.signal(signal.SIGSTOP)
        yard.nursery.until_stopped()
        await owner.release()
        await owner.sees(THERE, 1)
    yard.nursery.signal(fate)
    assert yard.nursery.ended() == (0 if fate is signal.SIGCONT else -signal.SIGKILL), why(case)
    await yard.recovers(case)


async def test_the_next_broker_starts_while_the_server_is_still_at_it(yard: Yard) -> None:
    """It takes the name behind the create in flight, learns for certain what became of it, and undoes it."""
    case = await yard.case("one_secret", BEFORE, deadline=SHORT)
    async with watching(yard) as owner:
        await held_up(yard, case, owner)
        yard.nursery.signal(signal.SIGKILL)
        assert yard.nursery.ended() == -signal.SIGKILL
        yard.nursery.begin(yard.next_life(case, "alive"))
        await owner.sees(HELD_UP, 2)
        await owner.release()
        assert yard.nursery.ended() == 0, why(case)
    assert await yard.ask(case, after_a_minute=True) == []
    await yard.recovers(case)


@dataclass
class Wire:
    """A wire to the server that keeps the first CREATE ROLE until it is let go, even from a sender who is dead."""

    yard: Yard
    port: int = 0
    kept: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection."""
        far, onward = await asyncio.open_connection(self.yard.server.host, self.yard.server.port)
        mine = False

        async def there() -> None:
            nonlocal mine
            while data := await near.read(65536):
                if b"CREATE ROLE" in data and b" LOGIN " in data:
                    mine = True
                    self.kept.set()
                    await self.let_go.wait()
                onward.write(data)
            if not mine:
                onward.close()

        async def here() -> None:
            while data := await far.read(65536):
                if mine and self.let_go.is_set() and not self.answer.done():
                    self.answer.set_result(data)
                    onward.close()
                if not back.is_closing():
                    back.write(data)
            back.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(there())
            group.create_task(here())


@asynccontextmanager
async def wire(yard: Yard) -> AsyncIterator[Wire]:
    """Listening."""
    found = Wire(yard)
    async with await asyncio.start_server(found.carry, "127.0.0.1", 0) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


async def killed_with_its_create_on_the_wire(yard: Yard, through: Wire, **more: Any) -> Case:
    """It was sent, has not arrived, and its sender is dead."""
    case = await yard.case("one_secret", room={"port": through.port}, **more)
    yard.nursery.begin(case)
    async with asyncio.timeout(60):
        await through.kept.wait()
    yard.nursery.signal(signal.SIGKILL)
    assert yard.nursery.ended() == -signal.SIGKILL
    return case


async def arrive(through: Wire) -> bytes:
    """Let it go, and wait for the server's answer, which nobody else hears."""
    through.let_go.set()
    async with asyncio.timeout(60):
        return await through.answer


async def test_it_arrives_before_the_next_broker_starts(yard: Yard) -> None:
    """The role exists, made by the dead; the next one finds the name taken, and destroys it."""
    async with wire(yard) as through:
        case = await killed_with_its_create_on_the_wire(yard, through)
        assert b"CREATE ROLE" in await arrive(through)
        assert len(await yard.roles()) == 1
        await yard.recovers(case)


async def test_it_arrives_where_the_name_is_occupied(yard: Yard) -> None:
    """The next broker took the name: the create is refused, though its deadline has not passed."""
    async with wire(yard) as through:
        case = await killed_with_its_create_on_the_wire(yard, through)
        assert await asyncio.to_thread(yard.nursery.run, yard.next_life(case, "restart")) == 0, why(case)
        assert await yard.ask(case) == []
        assert b"already exists" in await arrive(through)
        assert await yard.ask(case) == []
        await yard.recovers(case)


async def test_it_arrives_when_everybody_has_given_it_up(yard: Yard) -> None:
    """The name is free again, because no create can come any more: this one is refused by its own deadline."""
    async with wire(yard) as through:
        case = await killed_with_its_create_on_the_wire(yard, through, deadline=SHORT)
        assert await asyncio.to_thread(yard.nursery.run, yard.next_life(case, "alive")) == 0, why(case)
        assert await yard.roles() == []
        assert b"too late" in await arrive(through)
        assert await yard.roles() == []
        await yard.recovers(case)
