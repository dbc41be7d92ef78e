"""Instances begin, renew, fall silent and end; whoever watches is told (traps 3, 4).

Level-triggered: a node agent always says *everything* that lives, with a counter that rises with each change. What is
not in it has ended. A node that says nothing for `grace` makes its instances unobserved, which stops new credentials;
unobserved for longer than `limit - grace` they end, and an end is final. The time a server itself was down or asleep is
not held against a node: silence counts from its first look, and an end needs two looks with the whole time between.

Several servers may stand over one store, and a node speaks to one of them. All look after all instances: what a server
judges is how long *it* has seen nothing new, so neither a clock that differs nor a node that went over to another
server ends anything. A unit that gives begins with the node's row, and every move is a compare-and-swap (traps 6).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from attestor.errors import Banned, InstanceElsewhere, InstanceEnded, LeafRevoked, Unobserved
from attestor.instance import State, Strength
from attestor.server.changes import Changes
from attestor.server.store import changes as change_store
from attestor.server.store import facts, nodes, task_identities
from attestor.server.store import instances as store
from attestor.server.store.instances import Given, Instance
from attestor.server.store.nodes import Node, NodeState
from attestor.wire.attestation import Attestation
from attestor.wire.node import LiveSet
from attestor.wire.task import Bound, InstanceChange, Snapshot
from ca.errors import Problem
from ca.runtime.database import Database, Transaction
from ca.runtime.unchanged import Unchanged
from ca.spiffe.x509svid import X509Peer
from ca.store import is_revoked, revoke_leaves_of

NOT_REPORTED = "its node no longer reports it"
SILENT = "its node has not been heard of"
SILENT_TOO_LONG = "its node was not heard of for too long"
HEARD_AGAIN = "its node reports it again"


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a live set: which of its instances may get nothing any more."""

    refused: frozenset[str]


class Instances:
    """All instances of all nodes; one for each server process."""

    def __init__(
        self,
        database: Database,
        changes: Changes,
        *,
        grace: timedelta,
        limit: timedelta,
        let_expire: timedelta = timedelta(minutes=1),
        revoked: Callable[[], object] = lambda: None,
    ) -> None:
        """Leaves that expire within `let_expire` of an end are let expire; `revoked` is called when others were not."""
        self._database, self._changes = database, changes
        self._let_expire, self._revoked = let_expire, revoked
        self.grace, self.limit = grace, limit
        self._nodes, self._unobserved = Unchanged(), Unchanged()

    def is_silent(self, node: Node, now: datetime) -> bool:
        """Whether the node has not been heard of for longer than `grace`."""
        return now - self._nodes.since(node.id, _word(node), now) > self.grace

    def heard(self, node: Node, now: datetime) -> None:
        """This server just wrote down that it heard of `node`."""
        self._nodes.note(node.id, _word(replace(node, seen_at=now)), now)

    async def report(self, node: Node, live: LiveSet, now: datetime) -> Reported | None:
        """Take a live set; None for one older than the last. Raises Banned when the node is no longer this one."""

        async def unit(tx: Transaction) -> tuple[Reported | None, bool]:
            if not await nodes.seen(tx, node, live.counter, now):
                await self._still_admitted(tx, node)
                return None, False  # overtaken on its way by a newer one
            known = {one.id: one for one in await store.of_node(tx, node.id)}
            gone = [one for one in known.values() if one.id not in live.instances and one.since <= live.counter]
            back = [one for one in known.values() if one.id in live.instances and one.state is State.UNOBSERVED]
            refused = await store.nodes_of(tx, live.instances - known.keys())  # ended here, or another node's
            ended = await self._move(tx, gone, State.ENDED, NOT_REPORTED, now)
            again = await self._move(tx, back, State.LIVE, HEARD_AGAIN, now)
            return Reported(frozenset(refused)), bool(ended or again)

        # It takes access away, so it goes on with a full disk.
        reported, changed = await self._database.write(unit, ending=True)
        if reported is not None:
            self.heard(node, now)
        if changed:
            self.tell()
        return reported

    async def counter(self, node: Node) -> int:
        """What a node agent that starts goes on above: the newest live set applied, or that was to name an instance.

        One that was killed may have got a leaf for a process before the set that names it came here. Begun anew at or
        below that number, it would never be believed that this process is gone.
        """
        return max(node.live_counter, await self._database.read(lambda tx: store.newest_of_node(tx, node.id)))

    async def begin(self, tx: Transaction, node: Node) -> None:
        """Begin a unit that gives something to instances of `node`: from here on nobody else sends it away.

        Raises:
            Banned: the node was sent away, or admitted anew, since it was looked up.
        """
        if not await nodes.touch(tx, node):
            await self._still_admitted(tx, node)

    async def enter(
        self, tx: Transaction, node: Node, attestation: Attestation, given: Sequence[Given], now: datetime
    ) -> None:
        """Inside a unit: the instance is about to get a credential, and is known for it first.

        Raises:
            InstanceElsewhere: another node's.
            InstanceEnded: it has ended.
            Unobserved: its node is silent.
        """
        for problem in (await self.enter_all(tx, node, [(attestation, given)], now)).values():
            raise problem

    async def enter_all(
        self, tx: Transaction, node: Node, wanted: Sequence[tuple[Attestation, Sequence[Given]]], now: datetime
    ) -> dict[str, Problem]:
        """The same for many, in as few statements as for one; answers which instances must be refused, and why."""
        entering = _by_instance(wanted)
        found = await store.among(tx, entering)
        fresh = [one.begun(node, now) for name, one in entering.items() if name not in found]
        if fresh and await store.insert(tx, fresh) < len(fresh):  # another server was asked as well, and was faster
            found = await store.among(tx, entering)
        refused = {name: problem for name, one in found.items() if (problem := _refusal(node, one)) is not None}
        known = {name: one for name, one in entering.items() if name in found and name not in refused}
        refused |= await self._attested(tx, known, found)
        heard = [(one, given) for one, given in wanted if one.instance not in refused]
        await store.give(tx, [(one.instance, each) for one, given in heard for each in given])
        await facts.put(tx, [one for one, _ in heard])
        return refused

    @staticmethod
    async def _attested(
        tx: Transaction, known: Mapping[str, _Entering], found: Mapping[str, Instance]
    ) -> dict[str, Problem]:
        """Note newer attestations; answers who is not live any more, or not at the moment."""
        alike: defaultdict[tuple[Strength, bool], list[str]] = defaultdict(list)
        for name, one in known.items():
            alike[one.strength, one.bound].append(name)
        silent: dict[str, Problem] = {}
        for (strength, bound), names in alike.items():
            if await store.attested(tx, names, strength, bound=bound) < len(names):
                for name in names:
                    if not await store.attested(tx, [name], strength, bound=bound):
                        silent[name] = Unobserved(f"this instance gets nothing new at the moment: {found[name].reason}")
        return silent

    async def still_lives(self, tx: Transaction, instances: Iterable[str]) -> None:
        """Inside the unit that records a signature: none of them has ended, and none ends before this unit does.

        Raises InstanceEnded. An end that comes later finds what was recorded, and takes it back.
        """
        if not await store.hold(tx, sorted(set(instances))):
            raise InstanceEnded("this instance has ended")

    async def end(self, tx: Transaction, found: Sequence[Instance], reason: str, now: datetime) -> None:
        """Inside a unit, at its end: these end, whatever they are by now, and no leaf of theirs lives on."""
        ids = [one.id for one in found]
        ended = [one for one in ids if await store.finish(tx, one, reason, now)]
        await revoke_leaves_of(tx, ids, alive_at=now, reason=reason, now=now)
        await task_identities.finish_of(tx, ids, reason, now)
        await change_store.append(tx, ended, State.ENDED, reason, now)

    async def over(self, tx: Transaction, found: Sequence[Instance], reason: str, now: datetime) -> None:
        """Inside a unit, at its end: these have ended by themselves."""
        await self._move(tx, found, State.ENDED, reason, now)

    async def end_all(self, tx: Transaction, node: str, reason: str, now: datetime) -> int:
        """Inside a unit, at its end: every instance of a node ends."""
        found = await store.of_node(tx, node)
        await self._move(tx, found, State.ENDED, reason, now)
        return len(found)

    async def bind(self, instance: str) -> Bound:
        """It opened a task."""

        async def unit(tx: Transaction) -> Instance | None:
            await store.bind(tx, instance)
            return await store.get(tx, instance)

        found = await self._database.write(unit)
        if found is None:
            return Bound(state=State.UNKNOWN, strength=None)
        return Bound(state=found.state, strength=found.strength)

    async def state(self, instance: str) -> State:
        """What is known of one."""
        found = await self._database.read(lambda tx: store.get(tx, instance))
        return found.state if found else State.UNKNOWN

    async def state_of(self, peer: X509Peer) -> State:
        """What is known of the one at the other end of a connection. Raises LeafRevoked."""

        async def unit(tx: Transaction) -> State:
            if await is_revoked(tx, peer.issuer_key_id, peer.serial):
                raise LeafRevoked(f"the certificate of `{peer.id}` was revoked: get another one")
            found = await store.get(tx, peer.instance or "")
            return found.state if found else State.UNKNOWN

        return await self._database.read(unit)

    async def snapshot(self, instances: Iterable[str]) -> Snapshot:
        """Those of `instances` that are not simply live, and the number of the newest change."""
        asked = sorted(instances)

        async def unit(tx: Transaction) -> Snapshot:
            cursor, listed = await change_store.current(tx), []
            for one in asked:
                found = await store.get(tx, one)
                state, reason = (found.state, found.reason) if found else (State.UNKNOWN, "it is not known here")
                if state is not State.LIVE:
                    listed.append(InstanceChange(instance=one, state=state, reason=reason, cursor=cursor))
            return Snapshot(cursor=cursor, changes=tuple(listed))

        return await self._database.read(unit)

    async def since(self, cursor: int, limit: int = 500) -> Sequence[InstanceChange]:
        """The changes after `cursor`."""
        found = await self._database.read(lambda tx: change_store.after(tx, cursor, limit))
        return [
            InstanceChange(instance=one.instance, state=one.state, reason=one.reason, cursor=one.n) for one in found
        ]

    async def tick(self, now: datetime) -> None:
        """Silent nodes' instances become unobserved, and end when that lasts. Every server does so."""

        async def unit(tx: Transaction) -> tuple[list[str], list[str]]:
            over = self._overdue(await store.unobserved(tx), now)
            quiet = await self._quiet(tx, now)
            await store.prune(tx, now)
            await task_identities.prune(tx, now)
            await change_store.prune(tx, now)
            ended = await self._move(tx, over, State.ENDED, SILENT_TOO_LONG, now)
            return ended, await self._move(tx, quiet, State.UNOBSERVED, SILENT, now)

        ended, quiet = await self._database.write(unit, ending=True)
        for instance in quiet:
            self._unobserved.note(instance, now, now)
        if ended or quiet:
            self.tell()

    def tell(self) -> None:
        """After a commit by which instances ended: whoever watches hears of it, and lists name their leaves."""
        self.tell_lists()
        self._changes.notify()

    def tell_lists(self) -> None:
        """After a commit that took leaves back and ended nobody: every stream is told when there is a list."""
        self._revoked()

    def tell_streams(self) -> None:
        """After a commit that gave an instance something: its node hears of it."""
        self._changes.notify()

    def _overdue(self, unobserved: Sequence[Instance], now: datetime) -> list[Instance]:
        """Those that this server has seen unobserved, and nothing else, for too long."""
        self._unobserved.keep(one.id for one in unobserved)
        before = now - (self.limit - self.grace)
        return [one for one in unobserved if self._unobserved.since(one.id, one.changed_at, now) <= before]

    async def _quiet(self, tx: Transaction, now: datetime) -> list[Instance]:
        """The live instances of silent nodes; a node that another server hears meanwhile is none."""
        found = await nodes.admitted(tx)
        self._nodes.keep(node.id for node in found)
        quiet: list[Instance] = []
        for node in found:
            if self.is_silent(node, now):
                live = [one for one in await store.of_node(tx, node.id) if one.state is State.LIVE]
                quiet += live if live and await nodes.unheard(tx, node) else []
        return quiet

    async def _move(
        self, tx: Transaction, found: Sequence[Instance], state: State, reason: str, now: datetime
    ) -> list[str]:
        """Those that were still as they were found."""
        moved = [one.id for one in found if await store.move(tx, one, state, reason, now)]
        if state is State.ENDED:
            # Only after the move: what is signed before it is there to be found, and nothing is signed after it.
            bound = await store.bound_among(tx, moved)  # the others live out their short life (traps 4)
            await revoke_leaves_of(tx, bound, alive_at=now + self._let_expire, reason=reason, now=now)
            await task_identities.finish_of(tx, moved, reason, now)
        await change_store.append(tx, moved, state, reason, now)
        return moved

    @staticmethod
    async def _still_admitted(tx: Transaction, node: Node) -> None:
        found = await nodes.get(tx, node.id)
        if found is None or found.state is not NodeState.ADMITTED or found.admission != node.admission:
            raise Banned(f"the node `{node.id}` was sent away, or admitted anew since")


def _word(node: Node) -> tuple[str, datetime]:
    """What changes with everything a node says."""
    return node.admission, node.seen_at


@dataclass(slots=True)
class _Entering:
    """An instance that is about to get something: the newest of what is said of it."""

    id: str
    since: int
    strength: Strength
    bound: bool = False

    def begun(self, node: Node, now: datetime) -> Instance:
        """As it is if nobody knows it yet."""
        return Instance(
            id=self.id,
            node=node.id,
            state=State.LIVE,
            reason="attested",
            strength=self.strength,
            bound=self.bound,
            since=self.since,
            began_at=now,
            changed_at=now,
        )


def _by_instance(wanted: Sequence[tuple[Attestation, Sequence[Given]]]) -> dict[str, _Entering]:
    entering: dict[str, _Entering] = {}
    for one, given in wanted:
        begun = _Entering(one.instance, one.counter, Strength(one.strength))
        entry = entering.setdefault(one.instance, begun)
        entry.strength = begun.strength
        entry.bound = entry.bound or any(each.bind != "none" for each in given)
    return entering


def _refusal(node: Node, found: Instance) -> Problem | None:
    if found.node != node.id:
        return InstanceElsewhere("this instance belongs to another node")
    if found.state is State.ENDED:
        return InstanceEnded(f"this instance has ended: {found.reason}")
    return None
