"""The reconciler that moves each authority along the table, by itself or by an operator's word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from cryptography.hazmat.primitives.serialization import Encoding

from ca import store
from ca.authority import Authority
from ca.authority.establish import establish
from ca.authority.propagation import may_sign
from ca.authority.purposes import PURPOSES
from ca.authority.settings import SHARE
from ca.authority.shown import key_id_of
from ca.errors import Conflict, Problem, Stale, Unavailable
from ca.profiles.prepared import BACKDATE, Kind
from ca.rotation.table import TRANSITIONS, Event, step
from ca.rotation.withdrawal import forgetting, revoking, tainting
from ca.runtime import log
from ca.runtime.database import Transaction
from ca.store import Move, State, StoredAuthority

GRACE = timedelta(minutes=10)
"""How long after its last signature's expiry an authority stays in the bundle: for peers whose clock is behind."""


ABANDONED = timedelta(days=1)
"""How long after its end an authority that its own server did not retire is retired by another."""


_log = log.get(__name__)


class Rotation:
    """Moves the authorities of one ring. Every method may be repeated."""

    def __init__(self, authority: Authority) -> None:
        self._ring = authority.ring
        self._lock = asyncio.Lock()

    async def tick(self, now: datetime) -> None:
        """Do what is due: hear of other servers, give up lost keys, prepare, activate, retire, destroy.

        Raises:
            Unavailable: a key store or the root kept elsewhere does not do its part; everything else was done.
            NameTaken: another process has this server's name.
        """
        async with self._lock:
            try:
                await self._do_what_is_due(now)
            except Stale as error:  # another server was faster: the next tick looks anew
                _log.info("another server changed the authorities meanwhile", error=error)

    async def _do_what_is_due(self, now: datetime) -> None:
        await self._ring.reload(now)
        lost = [each for each in self._ring.own if self._signs(each) and not self._ring.has_key(each)]
        await self._move(lost, Event.GIVE_UP, now)
        trouble = await self._each_kind(tuple(PURPOSES), now)
        await self._retire(now)
        await self._ring.destroy_keys(now)
        if isinstance(trouble, Stale):
            raise trouble
        if trouble is not None:  # whatever it was, the process goes on: what is signed meanwhile needs none of it
            raise Unavailable(f"the authorities can't all be renewed: {trouble}") from trouble

    async def _each_kind(self, kinds: Sequence[Kind], now: datetime) -> Problem | None:
        """Advance each kind; what keeps one from it does not keep the others. The first trouble is the answer."""
        trouble: Problem | None = None
        for kind in kinds:
            try:
                if kind is Kind.ROOT and self._ring.upstream is not None:
                    await self._follow_upstream(now)
                else:
                    await self._advance(kind, now)
            except Problem as problem:
                trouble = trouble or problem
        if self._ring.upstream is None:
            await self._show(set(), now)
        return trouble

    async def _follow_upstream(self, now: datetime) -> None:
        """Show the roots that are kept elsewhere; a root of our own ends when no issuing authority stands on it."""
        assert self._ring.upstream is not None, "asked by whoever knows"
        anchors = await self._ring.upstream.anchors()
        await self._show({each.public_bytes(Encoding.DER) for each in anchors}, now)
        issuing, root = self._ring.active(Kind.ISSUING), self._ring.active(Kind.ROOT)
        if issuing is not None and self._ring.get(issuing.issuer_key_id or b"") is None:
            prepared = self._ring.prepared(Kind.ROOT)
            await self._move([prepared] if prepared is not None else [], Event.GIVE_UP, now)
            await self._move([root] if root is not None else [], Event.REPLACE, now)

    async def _show(self, wanted: set[bytes], now: datetime) -> None:
        """Beside what is wanted the bundle keeps every root something of this server still stands on."""
        stands = {each.issuer_key_id for each in self._ring.own if each.state is not State.TAINTED}
        kept = {each.certificate for each in self._ring.anchors if key_id_of(each.certificate) in stands}
        await self._ring.set_anchors(wanted | kept, now)

    async def rotate(self, kind: Kind, now: datetime) -> None:
        """Have a new authority in the place of the active one as soon as peers were told; a restart forgets nothing.

        Under a new root comes a new issuing authority. Raises Unavailable, Conflict.
        """
        self._check_root(kind)
        async with self._lock:
            await self._ring.reload(now)
            if self._ring.prepared(kind) is None:
                await establish(self._ring, kind, now)
            prepared = self._ring.prepared(kind)
            assert prepared is not None, "it was just made"
            if not prepared.forced:
                await self._ring.force(prepared, now)
            trouble = await self._each_kind((Kind.ROOT, Kind.ISSUING) if kind is Kind.ROOT else (kind,), now)
            if trouble is not None:
                raise trouble

    async def replace(self, kind: Kind, now: datetime) -> None:
        """Put a new authority in the place of the active one now, whoever has not heard of it yet.

        Under a new root comes a new issuing authority. Raises Unavailable, Conflict.
        """
        self._check_root(kind)
        async with self._lock:
            await self._ring.reload(now)
            for each in (Kind.ROOT, Kind.ISSUING) if kind is Kind.ROOT else (kind,):
                await self._move(self._of_another_root(each), Event.GIVE_UP, now)
                if self._ring.prepared(each) is None:
                    await establish(self._ring, each, now)
                await self._activate(each, now, at_once=True)

    def rotating(self, kind: Kind) -> Sequence[Move]:
        """What `rotate` or `replace` would change of what is there; nothing is done. Raises Conflict."""
        self._check_root(kind)
        moves: list[Move] = []
        for each in (Kind.ROOT, Kind.ISSUING) if kind is Kind.ROOT else (kind,):
            active, prepared = self._ring.active(each), self._ring.prepared(each)
            moves += [step(active, Event.REPLACE)] if active is not None else []
            if prepared is not None:
                follows = each is Kind.ISSUING and kind is Kind.ROOT
                moves.append(step(prepared, Event.GIVE_UP if follows else Event.ACTIVATE))
        return moves

    async def taint(self, key_id: bytes, now: datetime, *, dry_run: bool = False) -> Sequence[Move]:
        """Declare an authority compromised; a root takes the issuing authorities under it along. Answers what changed.

        Raises:
            NotFound: there is none.
            Conflict: it, or one under it, signs at the moment, here or on a server that is alive.
        """
        async with self._lock:
            await self._ring.reload(now)
            moves = tainting(self._ring, key_id, await self._gone(now))
            if moves and not dry_run:
                await self._ring.move(moves, now)
            return moves

    async def revoke(self, key_id: bytes, now: datetime, *, dry_run: bool = False) -> Sequence[Move]:
        """Take a tainted authority out of the bundle, with those under it. Answers what changed.

        Raises:
            NotFound: there is none.
            Conflict: it is not tainted, or is an issuing authority whose root is still believed.
        """
        async with self._lock:
            await self._ring.reload(now)
            moves = revoking(self._ring, key_id)
            if not dry_run:
                await self._ring.move(moves, now)
                await self._ring.destroy_keys(now)
            return moves

    async def forget(self, server: str, now: datetime, *, dry_run: bool = False) -> Sequence[Move]:
        """A server is gone for good: what it signed stays believed until it has expired, and nothing for longer.

        Answers what changed.

        Raises:
            NotFound: nothing of that server is believed.
            Conflict: it is alive, or is this one.
        """
        async with self._lock:
            await self._ring.reload(now)
            moves = forgetting(self._ring, server, await self._gone(now))
            if moves and not dry_run:
                await self._ring.move(moves, now)
            return moves

    async def _gone(self, now: datetime) -> frozenset[str]:
        """Other servers that are not heard of."""
        names = {each.server for each in self._ring.authorities} | {each.server for each in self._ring.anchors}
        names.discard(self._ring.settings.server)
        if not names:
            return frozenset()

        async def unit(tx: Transaction) -> frozenset[str]:
            return frozenset([name for name in sorted(names) if not await store.is_live(tx, name, now)])

        return await self._ring.database.read(unit)

    async def _advance(self, kind: Kind, now: datetime) -> None:
        """Prepare and activate until nothing is due; after a long sleep that is more than one step."""
        while True:
            outdated = kind is Kind.ISSUING and self._misplaced()
            if outdated:
                await self._move(self._of_another_root(kind), Event.GIVE_UP, now)
            active, prepared = self._ring.active(kind), self._ring.prepared(kind)
            left = 0.0 if active is None or outdated else _left(active, now)
            if prepared is not None and (left * SHARE <= 1 or prepared.forced):
                if not await self._activate(kind, now):
                    return
            elif prepared is None and left * 2 <= 1 and (kind is not Kind.ISSUING or self._has_root(now)):
                await establish(self._ring, kind, now)
            else:
                return

    async def _activate(self, kind: Kind, now: datetime, *, at_once: bool = False) -> bool:
        """Whether it may; without `at_once` that is asked again in the transaction itself."""
        active, prepared = self._ring.active(kind), self._ring.prepared(kind)
        assert prepared is not None, "only what is prepared is activated"
        only_if = None if at_once else partial(may_sign, ring=self._ring, authority=prepared, now=now)
        if only_if is not None and not await self._ring.database.read(only_if):
            return False
        moves = [step(active, Event.REPLACE)] if active is not None else []
        try:
            await self._ring.move([*moves, step(prepared, Event.ACTIVATE)], now, only_if=only_if)
        except Stale:
            if at_once:
                raise
            await self._ring.reload(now)  # another server was first: the next tick looks again
            return False
        return True

    async def _retire(self, now: datetime) -> None:
        own = [each for each in self._ring.own if each.state is State.OLD and now >= each.signed_until + GRACE]
        await self._move(own, Event.RETIRE, now)
        await self._retire_for(await self._gone(now), now)

    async def _retire_for(self, gone: frozenset[str], now: datetime) -> None:
        """What a server that is not heard of would do itself: what it left ends, and the roots shown for its sake."""
        for each in self._ring.authorities:
            over = each.state is State.OLD and now >= each.signed_until + GRACE
            if each.server in gone and self._ends(each) and (over or now >= each.not_after + ABANDONED):
                left = [] if each.state is State.OLD else [step(each, Event.GIVE_UP)]
                retired = Move(key_id=each.key_id, before=State.OLD, after=TRANSITIONS[State.OLD, Event.RETIRE])
                await self._ring.move([*left, retired], now)
        await self._ring.drop_anchors(gone, now)

    async def _move(self, authorities: Sequence[StoredAuthority], event: Event, now: datetime) -> None:
        if authorities:
            await self._ring.move([step(each, event) for each in authorities], now)

    def _of_another_root(self, kind: Kind) -> list[StoredAuthority]:
        """What is prepared under a root that is no longer the one to sign."""
        root, prepared = self._ring.active(Kind.ROOT), self._ring.prepared(kind)
        if kind is not Kind.ISSUING or prepared is None:
            return []
        above = prepared.issuer_key_id or b""
        if self._ring.upstream is not None:
            return [prepared] if self._ring.get(above) is not None else []
        return [prepared] if root is not None and above != root.key_id else []

    def _check_root(self, kind: Kind) -> None:
        if kind is Kind.ROOT and self._ring.upstream is not None:
            raise Conflict("the root's key is kept elsewhere: replace what `upstream` names, then rotate `issuing`")

    def _has_root(self, now: datetime) -> bool:
        root = self._ring.active(Kind.ROOT)
        return self._ring.upstream is not None or (root is not None and now < root.not_after)

    def _misplaced(self) -> bool:
        """Whether the issuing authority has to follow: an operator replaced its root, or that is kept elsewhere now."""
        root, issuing = self._ring.active(Kind.ROOT), self._ring.active(Kind.ISSUING)
        if issuing is None:
            return False
        above = issuing.issuer_key_id or b""
        if self._ring.upstream is not None:
            return self._ring.get(above) is not None
        return root is not None and above != root.key_id and (root.forced or above in self._ring.anchor_key_ids)

    @staticmethod
    def _ends(authority: StoredAuthority) -> bool:
        return authority.state in {State.PREPARED, State.ACTIVE, State.OLD}

    @staticmethod
    def _signs(authority: StoredAuthority) -> bool:
        return authority.state in {State.PREPARED, State.ACTIVE}


def _left(authority: StoredAuthority, now: datetime) -> float:
    """The part of its life that is left: 1 when it is made, 0 or less after its end."""
    life = authority.not_after - authority.not_before - BACKDATE
    return (authority.not_after - now) / max(life, timedelta(seconds=1))
