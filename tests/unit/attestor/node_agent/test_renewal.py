"""What a process is given and when anew: real processes and a real journal, a server the test commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from attestor.errors import InstanceEnded, NotEntitled
from attestor.methods.workload.proc import CallerGone
from attestor.methods.workload.unix import UnixSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.held import Held
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.journal import Journal
from attestor.node_agent.peer import peer_of
from attestor.node_agent.renewal import Renewal
from attestor.wire.node import Refusal
from ca.errors import Exhausted, Unavailable
from ca.spiffe.x509svid import X509Svid
from fakes.caller import Caller, caller
from fakes.clock import ManualClock
from fakes.disk import full_disk
from fakes.issuer import FakeIssuer, identity
from fakes.pki import TestAuthority

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass
class World:
    """A node agent without its wires."""

    clock: ManualClock
    issuer: FakeIssuer
    holdings: Holdings
    renewal: Renewal
    path: Path
    ended: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def admitted(self, one: Caller) -> AsyncIterator[Held]:
        """A call of `one` is open."""
        async with self.renewal.admitted(peer_of(one.connection)) as held:
            yield held

    async def gone(self, count: int = 1) -> None:
        """Wait until that many processes were seen to end."""
        await self.clock.until(lambda: len(self.ended) >= count)


@asynccontextmanager
async def opened(path: Path, *, most: int = 100, issuer: FakeIssuer | None = None) -> AsyncIterator[World]:
    """A node agent on the journal at `path`."""
    clock = ManualClock(START)
    issuer = issuer or FakeIssuer(TestAuthority(now=START, ttl=timedelta(days=30)), clock)
    ended: list[int] = []
    journal = Journal(path)
    holdings = Holdings(journal, most=most, ended=lambda: ended.append(1))
    holdings.restore()
    holdings.count_from(0)
    source = UnixSource()
    try:
        yield World(clock, issuer, holdings, Renewal(holdings, Attestor([source]), issuer, clock), path, ended)
    finally:
        source.close()
        holdings.close()
        journal.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A fresh one."""
    async with opened(tmp_path / "journal") as one:
        yield one


async def test_a_process_gets_an_identity_with_its_instance(world: World, tmp_path: Path) -> None:
    """The leaf carries the instance, belongs to the key, and the live set names the instance."""
    with caller(tmp_path) as one:
        async with world.admitted(one) as held:
            (leaf,) = held.leaves.values()
            svid = X509Svid.parse(leaf.chain, leaf.key)
            assert (str(svid.id), svid.instance) == ("spiffe://example.org/agent", held.instance)
            assert world.holdings.live().instances == {held.instance}


async def test_it_is_journalled_and_live_before_the_server_signs(world: World, tmp_path: Path) -> None:
    """Traps 3: whoever holds a leaf is known to be watched. The server is told from which live set on."""
    seen: list[tuple[bool, bool]] = []

    def look() -> None:
        instances = world.holdings.live().instances
        text = world.path.read_text()
        seen.append((bool(instances), all(instance in text for instance in instances)))

    world.issuer.before_signing = look
    with caller(tmp_path) as one:
        async with world.admitted(one):
            assert seen == [(True, True)]
    assert world.issuer.signed[0].attestation.counter == world.holdings.live().counter


async def test_one_process_is_one_instance_however_often_it_calls(world: World, tmp_path: Path) -> None:
    """And has one leaf and costs one descriptor; two processes are two instances."""
    with caller(tmp_path) as one, caller(tmp_path) as other:
        async with world.admitted(one) as first, world.admitted(one) as second, world.admitted(other) as third:
            assert first is second
            assert first.instance != third.instance
        assert len(world.issuer.signed) == 2
        assert len(world.holdings) == 2


async def test_no_rule_no_identity_and_nothing_kept(world: World, tmp_path: Path) -> None:
    """A process that is given nothing leaves no instance, no descriptor and no line behind."""
    world.issuer.given = lambda _: ()
    with caller(tmp_path) as one:
        with pytest.raises(NotEntitled, match="no identity rule"):
            async with world.admitted(one):
                pass
        assert len(world.holdings) == 0
        assert world.path.read_bytes() == b""


async def test_the_end_of_a_process_is_seen_at_once(world: World, tmp_path: Path) -> None:
    """Its instance leaves the live set, with a higher counter, and whoever serves it is told."""
    with caller(tmp_path) as one:
        async with world.admitted(one) as held:
            before, changed = world.holdings.live().counter, held.change.next()
            one.kill()
            await world.gone()
            assert changed.is_set()
            with pytest.raises(CallerGone):
                held.check()
            assert held.leaves == {}
    assert world.holdings.live().instances == frozenset()
    assert world.holdings.live().counter > before


async def test_a_leaf_is_replaced_at_half_its_life_and_the_instance_stays(world: World, tmp_path: Path) -> None:
    """Only while somebody waits for it; the other leaf is there when the process asks again."""
    with caller(tmp_path) as one:
        async with world.admitted(one) as held:
            (first,) = held.leaves.values()
            await world.clock.advance(20 * 60)
            await world.renewal.tick(world.clock.now())
            assert list(held.leaves.values()) == [first]
            await world.clock.advance(20 * 60)
            changed = held.change.next()
            await world.renewal.tick(world.clock.now())
            (second,) = held.leaves.values()
            assert changed.is_set()
            assert second.not_after > first.not_after
            assert X509Svid.parse(second.chain, second.key).instance == held.instance
        await world.clock.advance(40 * 60)
        await world.renewal.tick(world.clock.now())
        assert list(held.leaves.values()) == [second]
        async with world.admitted(one) as held:
            assert list(held.leaves.values()) != [second]


async def test_a_withdrawn_authority_replaces_its_leaves_now(world: World, tmp_path: Path) -> None:
    """Not at half life: a tainted key's leaves are wanted nowhere."""
    with caller(tmp_path) as one:
        async with world.admitted(one) as held:
            (leaf,) = held.leaves.values()
            world.issuer.withdrawn = frozenset({leaf.authority})
            await world.renewal.tick(world.clock.now())
            assert list(held.leaves.values()) != [leaf]


async def test_changed_rules_are_asked_for_again(world: World, tmp_path: Path) -> None:
    """Unchanged rules are not; an identity that is gone takes its leaf with it."""
    authority = world.issuer.authority
    with caller(tmp_path) as one:
        async with world.admitted(one) as held:
            await world.renewal.tick(world.clock.now())
            assert len(world.issuer.resolved) == 1
            world.issuer.given = lambda _: (identity(authority.id("/other")),)
            world.issuer.rules_version = "2"
            await world.renewal.tick(world.clock.now())
            assert [spiffe_id.path for spiffe_id in held.leaves] == ["/other"]
            world.issuer.given = lambda _: ()
            world.issuer.rules_version = "3"
            changed = held.change.next()
            await world.renewal.tick(world.clock.now())
            assert held.leaves == {}
            assert changed.is_set()


async def test_while_the_server_is_down_what_is_held_is_served(world: World, tmp_path: Path) -> None:
    """Until it expires; a process that holds nothing yet gets nothing."""
    with caller(tmp_path) as one, caller(tmp_path) as other:
        async with world.admitted(one) as held:
            world.issuer.down = True
            await world.clock.advance(40 * 60)
            with pytest.raises(Unavailable):
                await world.renewal.tick(world.clock.now())
            async with world.admitted(one) as again:
                assert again.leaves
            with pytest.raises(Unavailable):
                async with world.admitted(other):
                    pass
            await world.clock.advance(21 * 60)
            with pytest.raises(Unavailable):
                await world.renewal.tick(world.clock.now())
            assert held.leaves == {}


async def test_a_full_disk_gives_nothing(tmp_path: Path) -> None:
    """Law 3: what gives access waits for its durable record."""
    async with opened(tmp_path / "journal") as world:
        with caller(tmp_path) as one:
            with full_disk(world.path, 10), pytest.raises(Unavailable, match="journal"):
                async with world.admitted(one):
                    pass
            assert world.issuer.signed == []


async def test_an_ended_instance_gets_nothing_ever(world: World, tmp_path: Path) -> None:
    """By the server's word, pushed or as a refusal; the process stays in the live set until it is gone."""
    with caller(tmp_path) as one:
        async with world.admitted(one) as held:
            world.holdings.bar(frozenset({held.instance}))
            assert held.leaves == {}
        with pytest.raises(NotEntitled, match="was ended"):
            async with world.admitted(one):
                pass
        assert held.instance in world.holdings.live().instances
    with caller(tmp_path) as other:
        world.issuer.refusal = Refusal(code=InstanceEnded.code, reason="ended")
        with pytest.raises(NotEntitled, match="was ended"):
            async with world.admitted(other):
                pass


async def test_a_server_that_signs_something_else_is_not_believed(world: World, tmp_path: Path) -> None:
    """Another name, or a leaf that does not say who signed it, is never handed over."""
    world.issuer.disguise = lambda item: replace(item, id=world.issuer.authority.id("/other"))
    with caller(tmp_path) as one, pytest.raises(Unavailable, match="signed nothing"):
        async with world.admitted(one):
            pass
    world.issuer.disguise, world.issuer.names_itself = lambda item: item, False
    with caller(tmp_path) as one, pytest.raises(Unavailable, match="signed nothing"):
        async with world.admitted(one):
            pass


async def test_one_bad_answer_costs_one_identity(world: World, tmp_path: Path) -> None:
    """Everybody else's leaves are replaced in the same tick, and the one that was good stays until it runs out."""
    other = world.issuer.authority.id("/other")
    with ExitStack() as stack:
        callers = [stack.enter_context(caller(tmp_path)) for _ in range(3)]
        async with AsyncExitStack() as calls:
            helds = [await calls.enter_async_context(world.admitted(one)) for one in callers]
            before = [dict(held.leaves) for held in helds]
            bad = helds[1].instance
            world.issuer.disguise = lambda item: replace(item, id=other) if item.attestation.instance == bad else item
            await world.clock.advance(40 * 60)
            await world.renewal.tick(world.clock.now())
            assert [held.leaves == old for held, old in zip(helds, before, strict=True)] == [False, True, False]
            world.issuer.disguise = lambda item: item
            await world.renewal.tick(world.clock.now())
            assert helds[1].leaves != before[1]


async def test_tokens_are_kept_until_half_their_life(world: World, tmp_path: Path) -> None:
    """For the same question of the same process; another audience is another question."""
    agent = world.issuer.authority.id("/agent")
    with caller(tmp_path) as one:
        async with world.admitted(one) as held:
            first = await world.renewal.token(held, agent, ("a",))
            assert await world.renewal.token(held, agent, ("a",)) == first
            assert await world.renewal.token(held, agent, ("b",)) != first
            await world.clock.advance(151)
            assert await world.renewal.token(held, agent, ("a",)) != first
            with pytest.raises(NotEntitled):
                await world.renewal.token(held, world.issuer.authority.id("/other"), ("a",))


async def test_the_number_of_processes_is_bounded(tmp_path: Path) -> None:
    """One more is refused with a reason; when one leaves there is room."""
    async with opened(tmp_path / "journal", most=1) as world:
        with caller(tmp_path) as first, caller(tmp_path) as second:
            async with world.admitted(first):
                with pytest.raises(Exhausted, match="takes no more"):
                    async with world.admitted(second):
                        pass
            first.kill()
            await world.gone()
            async with world.admitted(second) as held:
                assert held.leaves


async def test_one_user_alone_gets_half_of_the_processes(tmp_path: Path) -> None:
    """Whoever forks and asks, forks and asks, locks out nobody else."""
    async with opened(tmp_path / "journal", most=4) as world:
        with ExitStack() as processes:
            greedy = [processes.enter_context(caller(tmp_path, user=4321)) for _ in range(3)]
            for one in greedy[:2]:
                async with world.admitted(one):
                    pass
            with pytest.raises(Exhausted, match="the user 4321"):
                async with world.admitted(greedy[2]):
                    pass
            other = processes.enter_context(caller(tmp_path, user=4322))
            async with world.admitted(other) as held, world.admitted(greedy[0]) as again:
                assert held.leaves
                assert again.leaves


async def test_a_restart_keeps_the_instances_of_those_that_live(tmp_path: Path) -> None:
    """Done when 5: who lives keeps its instance; who died meanwhile is missing from the first live set."""
    with caller(tmp_path) as lives, caller(tmp_path) as dies:
        async with opened(tmp_path / "journal") as world, world.admitted(lives) as held, world.admitted(dies):
            instance, issuer = held.instance, world.issuer
        dies.kill()
        async with opened(tmp_path / "journal", issuer=issuer) as world:
            assert world.holdings.live().instances == {instance}
            async with world.admitted(lives) as held:
                assert held.instance == instance
            lives.kill()
            await world.gone()
            assert world.holdings.live().instances == frozenset()


async def test_the_counter_goes_on_above_what_the_server_applied(tmp_path: Path) -> None:
    """A lower one would be ignored by the server, and every end with it."""
    async with opened(tmp_path / "journal") as world:
        world.holdings.count_from(41)
        assert world.holdings.live().counter == 42
        world.holdings.count_from(7)
        assert world.holdings.live().counter == 42


async def test_many_processes_at_once(world: World, tmp_path: Path) -> None:
    """Each gets its own."""
    from contextlib import AsyncExitStack

    with ExitStack() as processes:
        callers = [processes.enter_context(caller(tmp_path)) for _ in range(8)]
        async with AsyncExitStack() as calls:
            helds = await asyncio.gather(*(_enter(calls, world, one) for one in callers))
            assert len({held.instance for held in helds}) == 8


async def _enter(calls: AsyncExitStack, world: World, one: Caller) -> Held:
    return await calls.enter_async_context(world.admitted(one))
