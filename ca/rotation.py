"""The life of an authority, as a table, and the reconciler that moves each one along it.

    prepared ─▶ active ─▶ old ─▶ retired          by itself
        │                  │
        └──────────────────┴─▶ tainted ─▶ revoked  by an operator's word

An authority is prepared at half of its predecessor's life and told to peers at once; it signs when a sixth is left, so
peers have had a third of a life to hear of it. An operator may have it sign sooner, and a server that comes to a trust
domain has no predecessor: then it waits as `ca.authority.propagation` says. An old one stays in the bundle until
everything it signed has expired.

Each server moves its own authorities. Those of a server that is gone for good are retired when they have expired.

Tainted means: compromised, signs nothing, and what it signed is being replaced while peers still believe it. Revoked
means: peers are told to believe it no longer. An issuing authority is believed because of its root, so it can only be
revoked together with that root.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import MappingProxyType

from ca.authority import Authority, AuthoritySettings, Ring
from ca.authority.establish import establish
from ca.authority.propagation import may_sign
from ca.authority.ring import PURPOSES
from ca.authority.settings import SHARE
from ca.errors import Conflict, NotFound
from ca.keys.protocol import KeyStore
from ca.profiles.prepared import BACKDATE, Kind
from ca.runtime.clock import Clock
from ca.runtime.database import Database, migrate
from ca.store import Move, State, StoredAuthority

MIGRATIONS = Path(__file__).parent / "migrations"

GRACE = timedelta(minutes=10)
"""How long after its last signature's expiry an authority stays in the bundle: for peers whose clock is behind."""


ABANDONED = timedelta(days=1)
"""How long after its end an authority that its own server did not retire is retired by another."""


class Event(StrEnum):
    """What can happen to an authority."""

    ACTIVATE = "activate"
    REPLACE = "replace"
    GIVE_UP = "give-up"  # its key is gone, or its root was replaced before it signed
    RETIRE = "retire"
    TAINT = "taint"
    REVOKE = "revoke"


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.PREPARED, Event.ACTIVATE): State.ACTIVE,
        (State.PREPARED, Event.GIVE_UP): State.OLD,
        (State.PREPARED, Event.TAINT): State.TAINTED,
        (State.ACTIVE, Event.REPLACE): State.OLD,
        (State.ACTIVE, Event.GIVE_UP): State.OLD,
        (State.OLD, Event.RETIRE): State.RETIRED,
        (State.OLD, Event.TAINT): State.TAINTED,
        (State.TAINTED, Event.REVOKE): State.REVOKED,
    }
)
"""The whole machine; what is not here can't happen."""

INITIAL = State.PREPARED


def step(authority: StoredAuthority, event: Event) -> Move:
    """The move `event` makes. Raises Conflict when the table has none."""
    after = TRANSITIONS.get((authority.state, event))
    if after is None:
        expected = "`, `".join(state for state, known in TRANSITIONS if known is event)
        raise Conflict(
            f"can't {event} the authority `{authority.key_id.hex()}`: it is `{authority.state}`, expected `{expected}`"
        )
    return Move(key_id=authority.key_id, before=authority.state, after=after)


@asynccontextmanager
async def open_authority(
    settings: AuthoritySettings, database: Database, key_store: KeyStore, clock: Clock
) -> AsyncIterator[Authority]:
    """An authority that can sign: the tables are there, the keys are loaded, and the first tick is done.

    Whoever opens it goes on ticking: `background("rotation", Rotation(authority).tick, ...)`.

    Raises:
        Conflict: the store is another trust domain's.
        KeyLost, KeyUnusable: a key that must be there is not, or is not the one it was.
    """
    await migrate(database, "ca", MIGRATIONS)
    authority = Authority(await Ring.load(settings, database, key_store), clock)
    await Rotation(authority).tick(clock.now())
    yield authority


class Rotation:
    """Moves the authorities of one ring. Every method may be repeated."""

    def __init__(self, authority: Authority) -> None:
        self._ring = authority.ring
        self._lock = asyncio.Lock()

    async def tick(self, now: datetime) -> None:
        """Do what is due: hear of other servers, give up lost keys, prepare, activate, retire, destroy."""
        async with self._lock:
            await self._ring.reload(now)
            lost = [each for each in self._ring.own if self._signs(each) and not self._ring.has_key(each)]
            await self._move(lost, Event.GIVE_UP, now)
            for kind in PURPOSES:
                await self._advance(kind, now)
            await self._retire(now)
            await self._ring.destroy_keys(now)

    async def rotate(self, kind: Kind, now: datetime) -> None:
        """Have a new authority in the place of the active one as soon as peers were told; a restart forgets nothing.

        Under a new root comes a new issuing authority. Raises Unavailable.
        """
        async with self._lock:
            await self._ring.reload(now)
            if self._ring.prepared(kind) is None:
                await establish(self._ring, kind, now)
            prepared = self._ring.prepared(kind)
            assert prepared is not None, "it was just made"
            if not prepared.forced:
                await self._ring.force(prepared, now)
            for each in PURPOSES:
                await self._advance(each, now)

    async def replace(self, kind: Kind, now: datetime) -> None:
        """Put a new authority in the place of the active one now, whoever has not heard of it yet.

        Under a new root comes a new issuing authority. Raises Unavailable.
        """
        async with self._lock:
            for each in (Kind.ROOT, Kind.ISSUING) if kind is Kind.ROOT else (kind,):
                await self._move(self._of_another_root(each), Event.GIVE_UP, now)
                if self._ring.prepared(each) is None:
                    await establish(self._ring, each, now)
                await self._activate(each, now, at_once=True)

    async def taint(self, key_id: bytes, now: datetime) -> None:
        """Declare an authority compromised; a root takes the issuing authorities under it along.

        Raises:
            Conflict: it, or one under it, is active: replace it first.
        """
        async with self._lock:
            found = [each for each in self._with_those_under(key_id) if each.state is not State.TAINTED]
            await self._move(found, Event.TAINT, now)

    async def revoke(self, key_id: bytes, now: datetime) -> None:
        """Take a tainted authority out of the bundle, with those under it.

        Raises:
            Conflict: it is not tainted, or is an issuing authority whose root is still believed.
        """
        async with self._lock:
            found = self._with_those_under(key_id)
            if found[0].kind is Kind.ISSUING:
                raise Conflict("an issuing authority is believed because of its root: taint and revoke that root")
            await self._move(found, Event.REVOKE, now)
            await self._ring.destroy_keys(now)

    async def _advance(self, kind: Kind, now: datetime) -> None:
        """Prepare and activate until nothing is due; after a long sleep that is more than one step."""
        while True:
            outdated = kind is Kind.ISSUING and self._root_was_forced()
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
        await self._ring.move([*moves, step(prepared, Event.ACTIVATE)], now, only_if=only_if)
        return True

    async def _retire(self, now: datetime) -> None:
        own = [each for each in self._ring.own if each.state is State.OLD and now >= each.signed_until + GRACE]
        await self._move(own, Event.RETIRE, now)
        for each in self._ring.authorities:
            if each.server != self._ring.settings.server and now >= each.not_after + ABANDONED and self._ends(each):
                left = [] if each.state is State.OLD else [step(each, Event.GIVE_UP)]
                retired = Move(key_id=each.key_id, before=State.OLD, after=TRANSITIONS[State.OLD, Event.RETIRE])
                await self._ring.move([*left, retired], now)

    async def _move(self, authorities: Sequence[StoredAuthority], event: Event, now: datetime) -> None:
        if authorities:
            await self._ring.move([step(each, event) for each in authorities], now)

    def _of_another_root(self, kind: Kind) -> list[StoredAuthority]:
        """What is prepared under a root that is no longer the active one."""
        root, prepared = self._ring.active(Kind.ROOT), self._ring.prepared(kind)
        if kind is not Kind.ISSUING or prepared is None or root is None or prepared.issuer_key_id == root.key_id:
            return []
        return [prepared]

    def _with_those_under(self, key_id: bytes) -> list[StoredAuthority]:
        authority = self._ring.get(key_id)
        if authority is None:
            raise NotFound(f"there is no authority `{key_id.hex()}` that is still believed")
        return [authority, *(each for each in self._ring.authorities if each.issuer_key_id == key_id)]

    def _has_root(self, now: datetime) -> bool:
        root = self._ring.active(Kind.ROOT)
        return root is not None and now < root.not_after

    def _root_was_forced(self) -> bool:
        """Whether the issuing authority has to follow a root that an operator replaced."""
        root, issuing = self._ring.active(Kind.ROOT), self._ring.active(Kind.ISSUING)
        return (
            root is not None
            and root.forced
            and issuing is not None
            and issuing.issuer_key_id not in {None, root.key_id}
        )

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
