"""Two attestor servers over one PostgreSQL: what one does holds for the other, in every order of their commits (T6).

Each has a connection of its own, so a unit of one can stand between two statements of the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.errors import Banned
from attestor.instance import State, new_id
from attestor.server.store import changes as change_store
from attestor.server.store import instances as instance_store
from attestor.server.store.nodes import Node, NodeState
from attestor.wire.node import LiveSet, Refusal, Signed
from ca.errors import Problem
from ca.rotation import Rotation
from ca.runtime.database import open_database
from fakes.attestor_parts import Parts, attestation, parts, wants
from fakes.clock import ManualClock
from fakes.stores import postgres_address

RULES = 'rules: [{name: a, nodes: ["node:*"], when: ["unix:uid:7"], spiffe_id: /a}]'


@dataclass
class Two:
    """Both servers."""

    one: Parts
    other: Parts

    @property
    def clock(self) -> ManualClock:
        return self.one.clock

    async def states(self, *instances: str) -> list[State]:
        """As the store has them."""

        async def unit(tx: object) -> list[State]:
            found = [await instance_store.get(tx, one) for one in instances]  # type: ignore[arg-type]
            return [State.UNKNOWN if one is None else one.state for one in found]

        return await self.one.database.read(unit)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """The second began after the first, and its peers were told of its keys."""
    address, clock = await postgres_address(tmp_path), ManualClock()
    async with (
        parts(tmp_path, RULES, store=open_database(address), name="one", clock=clock) as one,
        parts(tmp_path, RULES, store=open_database(address), name="two", clock=clock) as other,
    ):
        for _ in range(8):
            await clock.advance(10)
            for server in (one, other):
                await Rotation(server.authority).tick(clock.now())
        yield Two(one, other)


async def begin(server: Parts, node: Node, counter: int = 1, instance: str | None = None) -> str:
    """A new instance that got a leaf."""
    of = attestation("unix:uid:7", counter=counter, instance=instance)
    (result,) = await server.workloads.sign(node, [wants("/a", of)], server.clock.now())
    assert isinstance(result, Signed), result
    return of.instance


def live(counter: int, *instances: str) -> LiveSet:
    """A report."""
    return LiveSet(counter=counter, instances=frozenset(instances))


async def test_each_signs_under_its_own_authority_and_both_verify_under_one_bundle(two: Two) -> None:
    """A node that goes over from one to the other is known there."""
    node = await two.one.join("n")
    chains = []
    for server in (two.one, two.other):
        (result,) = await server.workloads.sign(node, [wants("/a", attestation("unix:uid:7"))], server.clock.now())
        assert isinstance(result, Signed)
        chains.append(result.chain)
    for server in (two.one, two.other):
        assert [str(server.peer(chain).id) for chain in chains] == ["spiffe://example.org/a"] * 2
    assert len({server.authority.issuer(two.clock.now()).key_id for server in (two.one, two.other)}) == 2
    admitted = await two.other.admit("m")
    assert (await two.one.admission.recognise(two.one.peer(admitted.chain), two.clock.now())).id == "m"


async def test_a_token_is_redeemed_once_whoever_is_asked(two: Two) -> None:
    """Both servers at the same moment, many times."""
    for number in range(10):
        issued = await two.one.admission.issue_token(f"n{number}", timedelta(minutes=1), two.clock.now())
        answers = await asyncio.gather(
            two.one.prove(issued.token), two.other.prove(issued.token), return_exceptions=True
        )
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 1, answers
        assert all(isinstance(answer, Problem) for answer in answers if isinstance(answer, BaseException))


async def test_a_node_that_is_admitted_by_both_at_once_is_one_node(two: Two) -> None:
    """The later admission holds, the leaf of the other opens nothing."""
    for number in range(5):
        name = f"n{number}"
        admitted = await asyncio.gather(two.one.admit(name), two.other.admit(name))
        known = []
        for answer in admitted:
            try:
                await two.one.admission.recognise(two.one.peer(answer.chain), two.clock.now())
            except Banned:
                continue
            known.append(answer)
        assert len(known) == 1


async def test_a_ban_by_one_ends_what_the_other_gives_at_the_same_moment(two: Two) -> None:
    """Whatever the order: nothing of a banned node lives, and nothing is given to it afterwards."""
    for number in range(10):
        node = await two.one.join(f"n{number}")
        instances = [new_id() for _ in range(4)]
        items = [wants("/a", attestation("unix:uid:7", instance=one)) for one in instances]
        asked = [two.other.workloads.sign(node, [item], two.clock.now()) for item in items]
        await asyncio.gather(
            *asked, two.one.admission.send_away(node.id, NodeState.BANNED, two.clock.now()), return_exceptions=True
        )
        assert set(await two.states(*instances)) <= {State.ENDED, State.UNKNOWN}
        with pytest.raises(Banned):
            await two.other.workloads.sign(node, items, two.clock.now())


async def test_of_two_live_sets_that_arrive_at_two_servers_the_newer_holds(two: Two) -> None:
    """A node went over while its last words to the first server were on their way."""
    for number in range(10):
        node = await two.one.join(f"n{number}")
        stays, goes = await begin(two.one, node), await begin(two.other, node)
        now = two.clock.now()
        await asyncio.gather(
            two.one.instances.report(node, live(2, stays, goes), now),
            two.other.instances.report(node, live(3, stays), now),
        )
        assert await two.states(stays, goes) == [State.LIVE, State.ENDED]
        assert await two.one.instances.report(node, live(2, stays, goes), now) is None


async def test_one_instance_asked_for_at_two_servers_is_one(two: Two) -> None:
    """A node agent that goes over repeats its question."""
    node = await two.one.join("n")
    for _ in range(5):
        instance = new_id()
        await asyncio.gather(*(begin(server, node, instance=instance) for server in (two.one, two.other)))
        assert await two.states(instance) == [State.LIVE]


async def test_the_numbers_of_changes_stay_dense_whoever_commits(two: Two) -> None:
    """Commit order is number order: a reader that follows while both write never sees a gap (T7)."""
    nodes = [await two.one.join(f"n{number}") for number in range(6)]
    for node in nodes:
        for _ in range(3):
            await begin(two.one, node)
    read: list[int] = []

    async def follow() -> None:
        while len(read) < 18:
            found = await two.other.database.read(lambda tx: change_store.after(tx, len(read), 100))
            assert [one.n for one in found] == list(range(len(read) + 1, len(read) + len(found) + 1))
            read.extend(one.n for one in found)

    servers = (two.one, two.other)
    ends = [servers[n % 2].instances.report(node, live(5), two.clock.now()) for n, node in enumerate(nodes)]
    async with asyncio.timeout(30):
        await asyncio.gather(follow(), *ends)
    assert read == list(range(1, 19))


async def _look(two: Two) -> None:
    for server in (two.one, two.other):
        await server.instances.tick(server.clock.now())


async def test_a_node_that_only_the_other_server_hears_is_not_silent(two: Two) -> None:
    """What the other wrote down counts here."""
    node = await two.one.join("n")
    instance = await begin(two.one, node)
    for _ in range(100):
        await two.clock.advance(5)
        await two.other.instances.report(node, live(1, instance), two.clock.now())
        await _look(two)
        assert await two.states(instance) == [State.LIVE]
    await two.clock.advance(10)
    await _look(two)
    await two.clock.advance(10)
    await _look(two)
    assert await two.states(instance) == [State.UNOBSERVED]


async def test_a_server_whose_clock_runs_ahead_ends_nothing(two: Two) -> None:
    """Each judges how long it has itself seen nothing new, never another's clock by its own."""
    ahead = timedelta(minutes=10)
    node = await two.one.join("n")
    instance = await begin(two.one, node)
    for _ in range(30):
        await two.clock.advance(5)
        await two.one.instances.report(node, live(1, instance), two.clock.now())
        await two.other.instances.tick(two.clock.now() + ahead)
        await two.one.instances.tick(two.clock.now())
        assert await two.states(instance) == [State.LIVE]
    await two.clock.advance(16)
    await two.one.instances.tick(two.clock.now())
    assert await two.states(instance) == [State.UNOBSERVED]
    await two.other.instances.tick(two.clock.now() + ahead)  # its first look at that: an end needs two
    assert await two.states(instance) == [State.UNOBSERVED]


async def test_silence_ends_once_and_is_told_once(two: Two) -> None:
    """Both servers find the same instance overdue at the same moment."""
    node = await two.one.join("n")
    instances = [await begin(two.one, node) for _ in range(5)]
    await _look(two)
    await two.clock.advance(16)
    now = two.clock.now()
    await asyncio.gather(*(server.instances.tick(now) for server in (two.one, two.other)))
    assert await two.states(*instances) == [State.UNOBSERVED] * 5
    await _look(two)
    await two.clock.advance(46)
    now = two.clock.now()
    await asyncio.gather(*(server.instances.tick(now) for server in (two.one, two.other)))
    assert await two.states(*instances) == [State.ENDED] * 5
    told = await two.one.database.read(lambda tx: change_store.after(tx, 0, 100))
    assert [one.state for one in told] == [State.UNOBSERVED] * 5 + [State.ENDED] * 5


async def test_an_instance_that_ended_at_one_server_gets_nothing_at_the_other(two: Two) -> None:
    """At the same moment: the leaf was given before the end, or not at all."""
    for number in range(5):
        node = await two.one.join(f"n{number}")
        instance = await begin(two.one, node)
        again = wants("/a", attestation("unix:uid:7", instance=instance))
        await asyncio.gather(
            two.one.instances.report(node, live(2), two.clock.now()),
            two.other.workloads.sign(node, [again], two.clock.now()),
        )
        assert await two.states(instance) == [State.ENDED]
        (result,) = await two.other.workloads.sign(node, [again], two.clock.now())
        assert isinstance(result, Refusal)
        assert result.code == "instance-ended"
