"""The life of an authority, as a table, and the reconciler that moves each one along it.

    prepared ─▶ active ─▶ old ─▶ retired          by itself
        │                  │
        └──────────────────┴─▶ tainted ─▶ revoked  by an operator's word

An authority is prepared at half of its predecessor's life and told to peers at once; it signs when a sixth is left, so
peers have had a third of a life to hear of it. An old one stays in the bundle until everything it signed has expired.

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
from pathlib import Path
from types import MappingProxyType

from ca.authority import Authority, AuthoritySettings, Ring
from ca.authority.establish import establish
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
        """Do what is due: give up lost keys, prepare, activate, retire, destroy."""
        async with self._lock:
            lost = [each for each in self._ring.authorities if self._signs(each) and not self._ring.has_key(each)]
            await self._move(lost, Event.GIVE_UP, now)
            for kind in PURPOSES:
                await self._advance(kind, now)
            await self._move([each for each in self._ring.authorities if _over(each, now)], Event.RETIRE, now)
            await self._ring.destroy_keys(now)

    async def replace(self, kind: Kind, now: datetime) -> None:
        """Put a new authority in the place of the active one now; under a new root also a new issuing authority."""
        async with self._lock:
            for each in (Kind.ROOT, Kind.ISSUING) if kind is Kind.ROOT else (kind,):
                await self._move(self._of_another_root(each), Event.GIVE_UP, now)
                if self._ring.prepared(each) is None:
                    await establish(self._ring, each, now)
                await self._activate(each, now)

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
            active, prepared = self._ring.active(kind), self._ring.prepared(kind)
            left = 0.0 if active is None else _left(active, now)
            if prepared is not None and left * SHARE <= 1:
                await self._activate(kind, now)
            elif prepared is None and left * 2 <= 1:
                await establish(self._ring, kind, now)
            else:
                return

    async def _activate(self, kind: Kind, now: datetime) -> None:
        active, prepared = self._ring.active(kind), self._ring.prepared(kind)
        assert prepared is not None, "only what is prepared is activated"
        moves = [step(active, Event.REPLACE)] if active is not None else []
        await self._ring.move([*moves, step(prepared, Event.ACTIVATE)], now)

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

    @staticmethod
    def _signs(authority: StoredAuthority) -> bool:
        return authority.state in {State.PREPARED, State.ACTIVE}


def _left(authority: StoredAuthority, now: datetime) -> float:
    """The part of its life that is left: 1 when it is made, 0 or less after its end."""
    life = authority.not_after - authority.not_before - BACKDATE
    return (authority.not_after - now) / max(life, timedelta(seconds=1))


def _over(authority: StoredAuthority, now: datetime) -> bool:
    return authority.state is State.OLD and now >= authority.signed_until + GRACE
