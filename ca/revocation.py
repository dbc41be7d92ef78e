"""Revocation lists: what was taken back, signed by whoever signed it, so that others hear of it.

Every authority that signs certificates has a list from its first day, an empty one, valid for its whole life: a
verifier that wants one for each authority of a chain (Envoy does) never has to do without, also when this server is
gone (traps 15). Later lists replace it, and their numbers only rise: they follow the seconds since 1970, so that a
store that was restored does not go back.

Level-triggered: a row that no list names yet is found by the next tick of the server that has its issuer's key, whoever
wrote the row and whatever was killed in between. However many certificates are taken back, an authority signs at most
one list in `pause`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from ca import store
from ca.authority import Authority
from ca.errors import Problem
from ca.profiles import crl
from ca.profiles.prepared import BACKDATE, Kind
from ca.runtime import failpoint, log
from ca.runtime.clock import micros
from ca.runtime.database import StoreFull, Transaction
from ca.runtime.process import Wake
from ca.spiffe.revocation_list import RevocationLists
from ca.store import StoredAuthority, StoredList

PAUSE = timedelta(seconds=2)
TIDY = timedelta(minutes=30)
"""How old a list must be before it is replaced only because some of its entries have expired."""

_log = log.get(__name__)


class Lists:
    """The lists of one trust domain as one server sees them; `tick` signs those of its own authorities."""

    def __init__(self, authority: Authority, *, pause: timedelta = PAUSE) -> None:
        self._authority, self._pause = authority, pause
        self._signed_at: dict[bytes, datetime] = {}
        self._unkept: dict[bytes, StoredList] = {}
        self._keyless: set[bytes] = set()
        self._subscribers: list[Callable[[], object]] = []
        self.due = Wake()
        """Set it after a commit that took something back: the list need not wait for its turn."""
        self.current: tuple[StoredList, ...] = ()
        self.revocations = RevocationLists()
        authority.subscribe(self.due.set)

    @property
    def ders(self) -> tuple[bytes, ...]:
        """The newest list of every authority that is still believed, of all servers."""
        return tuple(one.der for one in self.current)

    def newest(self, kind: Kind) -> StoredList | None:
        """The list of this server's active authority of that kind."""
        active = self._authority.ring.active(kind)
        return next((one for one in self.current if active is not None and one.issuer_key_id == active.key_id), None)

    async def named(self) -> int:
        """How many leaves are taken back and have not expired for everybody."""
        return await self._authority.ring.database.read(store.count_revoked)

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Call `callback` whenever there is another list."""
        self._subscribers.append(callback)

    async def tick(self, now: datetime) -> None:
        """Sign what is due, and notice what other servers signed. Raises what kept it from signing one of them."""
        ring = self._authority.ring
        known, trouble = await ring.database.read(store.numbers), None
        for authority in ring.own:
            if authority.certificate is None or now >= authority.not_after:
                continue
            if not ring.has_key(authority):
                await self._warn(authority, known.get(authority.key_id, 0))
                continue
            newest = max(known.get(authority.key_id, 0), self._number_unkept(authority.key_id))
            try:
                signed = await self._is_due(authority.key_id, newest, now) and await self._sign(authority, newest, now)
            except Problem as problem:  # of one key; the others' lists are due all the same
                trouble = problem
                continue
            if signed and newest:
                self._signed_at[authority.key_id] = now
        await self._look(now)
        if trouble is not None:
            raise trouble

    async def _warn(self, authority: StoredAuthority, number: int) -> None:
        """Its key was in memory, or is lost: what it signed can only be ended with the authority."""
        unlisted = partial(store.unlisted, issuer_key_id=authority.key_id, number=number)
        if authority.key_id not in self._keyless and await self._authority.ring.database.read(unlisted):
            self._keyless.add(authority.key_id)
            _log.error(
                "no list can name what was revoked: the authority's key is gone", authority=authority.key_id.hex()
            )

    def _number_unkept(self, key_id: bytes) -> int:
        found = self._unkept.get(key_id)
        return 0 if found is None else found.number

    async def _is_due(self, key_id: bytes, number: int, now: datetime) -> bool:
        if not number:
            return True
        last = self._signed_at.get(key_id)
        if last is not None and timedelta(0) <= now - last < self._pause:
            return False

        async def unit(tx: Transaction) -> bool:
            if await store.unlisted(tx, key_id, number):
                return True
            newest = await store.newest(tx, key_id) if await store.has_expired(tx, key_id, now) else None
            return newest is not None and newest.this_update <= now - TIDY

        return await self._authority.ring.database.read(unit)

    async def _sign(self, authority: StoredAuthority, above: int, now: datetime) -> bool:
        key_id, number = authority.key_id, max(above + 1, micros(now) // 1_000_000)
        failpoint.reach("revocation.claim.before")
        claim = partial(
            store.claim_entries, issuer_key_id=key_id, above=above, number=number, most=crl.MOST_ENTRIES, now=now
        )
        entries = await self._authority.ring.database.write(claim, ending=True)
        if len(entries) >= crl.MOST_ENTRIES:
            _log.error("a revocation list is full: replace the authority", entries=len(entries), kind=authority.kind)
        signed = await self._signed(authority, number, entries, now)
        failpoint.reach("revocation.keep.before")
        kept = await self._keep(signed)
        _log.info("revocation list signed", kind=authority.kind, number=number, entries=len(entries), kept=kept)
        return kept

    async def _signed(
        self, authority: StoredAuthority, number: int, entries: Sequence[crl.Entry], now: datetime
    ) -> StoredList:
        request = crl.ListRequest(
            number=number,
            this_update=max(now - BACKDATE, authority.not_before),
            next_update=authority.not_after,
            entries=entries,
        )
        prepared = crl.prepare(request, self._authority.ring.issuer(authority))
        return StoredList(
            issuer_key_id=authority.key_id,
            number=number,
            this_update=prepared.not_before,
            next_update=prepared.not_after,
            der=await self._authority.sign_list(prepared),
        )

    async def _keep(self, signed: StoredList) -> bool:
        """Durable if the disk has room; what it names is durable, so it is shown either way (law 3, traps 12)."""
        try:
            kept = await self._authority.ring.database.write(partial(store.keep, one=signed), ending=True)
        except StoreFull as error:
            _log.error("a revocation list is shown and can't be kept", error=error)
            self._unkept[signed.issuer_key_id] = signed
            return True
        self._unkept.pop(signed.issuer_key_id, None)
        return kept

    async def _look(self, now: datetime) -> None:
        """Take over what the store has, if it is other than what is known here."""
        database = self._authority.ring.database
        known = await database.read(store.numbers)
        believed = {one.key_id for one in self._authority.ring.authorities}
        if known.keys() - believed:  # or of one that another server has just made
            await database.write(partial(store.forget_finished, now=now), ending=True)
        known |= {key_id: one.number for key_id, one in self._unkept.items() if one.number > known.get(key_id, 0)}
        wanted = {key_id: number for key_id, number in known.items() if key_id in believed}
        if {one.issuer_key_id: one.number for one in self.current} == wanted:
            return
        found = {one.issuer_key_id: one for one in await database.read(store.lists)}
        found |= {key_id: one for key_id, one in self._unkept.items() if one.number == wanted.get(key_id)}
        self.current = tuple(found[key_id] for key_id in sorted(found.keys() & believed))
        self.revocations = RevocationLists.of(self.ders)
        for callback in tuple(self._subscribers):
            callback()
