"""The link to process ends, against a real attestor server and node agent, with real processes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attestor.client.source import X509Source
from attestor.client.tasks import TaskLink
from attestor.instance import State, Strength, new_id
from attestor.node_agent.settings import NodeAgentSettings
from attestor.rules.model import ANY_NODE, Condition
from attestor.selector import Selector
from attestor.server.serve import Server
from attestor.server.settings import OwnPart
from attestor.wire.task import Beat, InstanceChange, Snapshot, Watched
from ca.errors import Denied, Malformed, Problem
from ca.runtime.secret import Reference, Secret
from ca.spiffe.bundle import BundleSet
from fakes.clock import ManualClock
from fakes.identity_side import CLOCK, address, agent, both, server
from fakes.material import Material
from fakes.pki import TestAuthority

BROKER = OwnPart(
    name="broker",
    nodes=Condition.all_of([ANY_NODE]),
    when=Condition.all_of([Selector.parse("unix:self:true")]),
)
AGENT = """
import asyncio, sys
from attestor.client.source import X509Source

async def main():
    async with X509Source.open(sys.argv[1]) as source:
        print(source.svid.instance, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass
class Process:
    """An agent with an identity."""

    process: asyncio.subprocess.Process
    instance: str

    async def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def process(chosen: NodeAgentSettings) -> AsyncIterator[Process]:
    """It runs until left."""
    one = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, address(chosen), stdout=-1)
    assert one.stdout is not None
    found = Process(one, (await one.stdout.readline()).decode().strip())
    try:
        yield found
    finally:
        if one.returncode is None:
            await found.kill()


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[tuple[Server, NodeAgentSettings, TaskLink]]:
    """This process is the broker and holds a link."""
    async with (
        both(folder, parts=(BROKER,)) as (one, two),
        X509Source.open(address(two), CLOCK) as source,
        TaskLink.open(source, *one.address) as link,
    ):
        assert source.svid.id.path == "/sojourn/broker"
        async with asyncio.timeout(60):
            while not link.connected:
                await CLOCK.sleep(0.01)
        yield one, two, link


async def next_of(link: TaskLink) -> InstanceChange:
    """The next change, within a minute."""
    async with asyncio.timeout(60):
        return await anext(link.changes())


async def test_the_end_of_a_bound_process_is_heard(tmp_path: Path) -> None:
    """Kill -9 of an agent reaches whoever it opened a task with."""
    async with linked(tmp_path) as (_, chosen, link), process(chosen) as one:
        bound = await link.bind(one.instance)
        assert (bound.state, bound.strength) == (State.LIVE, Strength.SHARED_UID)
        assert link.state(one.instance) is State.LIVE
        await one.kill()
        change = await next_of(link)
        assert (change.instance, change.state) == (one.instance, State.ENDED)
        assert link.state(one.instance) is State.ENDED
        assert (await link.bind(one.instance)).state is State.ENDED


async def test_the_next_of_several_servers_is_asked_when_one_does_not_answer(tmp_path: Path) -> None:
    """The first is not there at all; what is known comes from the second."""
    async with (
        both(tmp_path, parts=(BROKER,)) as (one, two),
        X509Source.open(address(two), CLOCK) as source,
        TaskLink.open(source, "127.0.0.1", 1, others=[one.address]) as link,
        asyncio.timeout(60),
    ):
        while not link.connected:
            await CLOCK.sleep(0.01)
        assert (await link.bind(new_id())).state is State.UNKNOWN


async def test_an_instance_nobody_knows_is_unknown(tmp_path: Path) -> None:
    """It is never taken for a live one."""
    async with linked(tmp_path) as (_, _, link):
        assert (await link.bind(new_id())).state is State.UNKNOWN
        with pytest.raises(Malformed):
            await link.bind("../etc")


async def test_others_than_the_broker_are_refused(tmp_path: Path) -> None:
    """An agent's own identity opens nothing here."""
    async with both(tmp_path) as (one, two), X509Source.open(address(two), CLOCK) as source:
        assert source.svid.id.path == "/agent"
        async with TaskLink.open(source, *one.address) as link:
            with pytest.raises(Denied):
                await link.bind(new_id())
            assert not link.connected


async def test_what_was_missed_is_in_the_next_snapshot(tmp_path: Path) -> None:
    """The server is away while a process dies: unobserved meanwhile, and the first snapshot afterwards tells."""
    changes = _durable(tmp_path)
    async with AsyncExitStack() as rest:
        async with server(tmp_path, **changes) as first:
            token = Secret((await first.issue_token("web-1")).reveal())
            chosen = await rest.enter_async_context(agent(tmp_path, first.address[1], token))
            source = await rest.enter_async_context(X509Source.open(address(chosen), CLOCK))
            link = await rest.enter_async_context(TaskLink.open(source, *first.address))
            one = await rest.enter_async_context(process(chosen))
            await link.bind(one.instance)
        await one.kill()
        async with asyncio.timeout(60):
            while link.connected:
                await CLOCK.sleep(0.01)
        assert link.state(one.instance) is State.UNOBSERVED
        async with server(tmp_path, **changes):
            change = await next_of(link)
            assert (change.instance, change.state) == (one.instance, State.ENDED)


def _durable(folder: Path) -> dict[str, Any]:
    """A server that is the same after a restart: its keys on disk, its port fixed."""
    seal = folder / "seal"
    seal.write_text("ab" * 32)
    seal.chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "parts": (BROKER,),
        "listen": {"port": port},
        "keys": {"store": "disk", "folder": folder / "keys", "seal": Reference.parse(f"file:{seal}")},
    }


A, B = new_id(), new_id()


@pytest.fixture
def link() -> TaskLink:
    """A link that is fed by hand, watching A."""
    authority = TestAuthority()
    material = Material(authority.leaf("/sojourn/broker"), BundleSet.of(authority.bundle()), ManualClock())
    one = TaskLink(material, "127.0.0.1", 1)
    one.watch([A])
    return one


def heard(link: TaskLink, *steps: Watched) -> list[tuple[str, State]]:
    """What a stream of `steps` makes known."""
    cursor: int | None = None
    for step in steps:
        cursor = link._apply(step, frozenset({A}), cursor)
    told = []
    while not link._changes.empty():
        change = link._changes.get_nowait()
        told.append((change.instance, change.state))
    return told


def moved(instance: str, state: State, cursor: int) -> InstanceChange:
    """One line of the stream."""
    return InstanceChange(instance=instance, state=state, reason="", cursor=cursor)


def test_each_change_is_told_once_and_an_end_is_final(link: TaskLink) -> None:
    """Silence and its end are told; after an end nothing is, whatever the server says."""
    steps = (
        Snapshot(cursor=5, changes=()),
        moved(A, State.UNOBSERVED, 6),
        moved(A, State.UNOBSERVED, 7),
        moved(A, State.LIVE, 8),
        Beat(cursor=8),
        moved(A, State.ENDED, 9),
        moved(A, State.LIVE, 10),
    )
    assert heard(link, *steps) == [(A, State.UNOBSERVED), (A, State.LIVE), (A, State.ENDED)]


def test_other_brokers_instances_only_count(link: TaskLink) -> None:
    """Numbers are dense over all instances; those nobody here asked for are not told."""
    steps = (Snapshot(cursor=1, changes=()), moved(B, State.ENDED, 2), moved(A, State.ENDED, 3))
    assert heard(link, *steps) == [(A, State.ENDED)]


def test_a_snapshot_tells_only_what_is_new(link: TaskLink) -> None:
    """The same snapshot after a break is no news; who is missing in it lives again."""
    ended = Snapshot(cursor=3, changes=(moved(A, State.UNOBSERVED, 3),))
    assert heard(link, ended) == [(A, State.UNOBSERVED)]
    assert heard(link, ended) == []
    assert heard(link, Snapshot(cursor=4, changes=())) == [(A, State.LIVE)]


@pytest.mark.parametrize(
    "steps",
    [
        (Snapshot(cursor=1, changes=()), moved(A, State.ENDED, 3)),
        (Snapshot(cursor=1, changes=()), Beat(cursor=2)),
        (Snapshot(cursor=1, changes=()), moved(A, State.ENDED, 1)),
        (moved(A, State.ENDED, 1),),
        (Beat(cursor=1),),
    ],
)
def test_a_gap_breaks_the_link(link: TaskLink, steps: tuple[Watched, ...]) -> None:
    """A missed end must not go unnoticed: the next snapshot makes up for it."""
    with pytest.raises(Problem):
        heard(link, *steps)


def test_while_the_link_is_down_nobody_is_live(link: TaskLink) -> None:
    """What was live is unobserved, what ended stays ended, what was never heard of is unknown."""
    heard(link, Snapshot(cursor=1, changes=()))
    assert link.state(A) is State.LIVE
    link._current = False
    assert link.state(A) is State.UNOBSERVED
    assert link.state(B) is State.UNKNOWN
    heard(link, Snapshot(cursor=2, changes=(moved(A, State.ENDED, 2),)))
    link._current = False
    assert link.state(A) is State.ENDED
    link.forget([A])
    assert link.state(A) is State.UNKNOWN
