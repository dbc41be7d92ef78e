"""Follows one foreign trust domain: asks its endpoint when it is due, and keeps the newest bundle.

Each domain has its own follower, its own time and its own patience, so one that is slow or lies delays no other. What
was held stays when the endpoint is away, for however long; of several servers over one store one asks.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from attestor.server.federation.domains import Federation, document_of
from attestor.server.federation.endpoint import DEADLINE, Endpoint, Profile, fetch
from attestor.server.store import federation as store
from attestor.server.store.federation import Source, StoredDomain
from attestor.wire.trust_bundle import read_bundle
from ca.errors import Problem, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.database import Transaction
from ca.runtime.metrics import Metrics
from ca.runtime.process import Wake
from ca.spiffe.bundle import Bundle

SOONEST, USUAL, LATEST = timedelta(minutes=1), timedelta(minutes=5), timedelta(days=1)
"""Between two questions: what a refresh hint may ask for, and what is done without one."""
EAGER = timedelta(seconds=5)
"""After a failure while nothing is held; twice as long after each further one."""
SLOWEST = timedelta(hours=1)
CLAIM = timedelta(seconds=3 * DEADLINE)
"""How long a server that has begun to ask keeps the others from it."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_TROUBLE = 500
_log = log.get(__name__)


def pause(bundle: Bundle | None, failures: int) -> timedelta:
    """How long to wait before the next question, after so many failures in a row; `bundle` is what is held."""
    usual = usual_pause(bundle)
    if not failures:
        return usual
    first, longest = (EAGER, usual) if bundle is None else (usual, max(usual, SLOWEST))
    return min(first * (1 << min(failures - 1, 20)), longest)


def usual_pause(bundle: Bundle | None) -> timedelta:
    """By its own refresh hint."""
    hint = bundle.refresh_hint if bundle is not None else None
    return USUAL if hint is None else min(max(hint, SOONEST), LATEST)


def newer(held: Bundle, found: Bundle) -> bool:
    """Whether `found` takes the place of `held`: not when its sequence is lower; the same number is told to the log."""
    if held.sequence is None or found.sequence is None:
        return True
    if found.sequence == held.sequence and _members(found) != _members(held):
        _log.warning(
            "a foreign bundle changed and its sequence did not",
            trust_domain=str(found.trust_domain),
            sequence=found.sequence,
        )
    return found.sequence >= held.sequence


@dataclass(slots=True, kw_only=True)
class Follower:
    """Of one endpoint."""

    federation: Federation
    endpoint: Endpoint
    metrics: Metrics
    clock: Clock
    on_change: Callable[[], object] = lambda: None
    """Called when the store holds something else than before."""
    wake: Wake = field(default_factory=Wake)
    _due: datetime = _LONG_AGO

    def ask_now(self) -> None:
        """Look into the store at once: something there was said to be due."""
        self._due = _LONG_AGO
        self.wake.set()

    async def tick(self, now: datetime) -> None:
        """Ask if it is time. Raises Unavailable when the store is."""
        if now < self._due <= now + LATEST:
            return
        held = await self._held(now)
        if now < held.due_at <= now + LATEST:
            self._due = held.due_at
            return
        claimed = replace(held, due_at=now + CLAIM)
        self._due = claimed.due_at
        if await self._write(claimed):
            await self._ask(replace(claimed, version=held.version + 1))

    async def _ask(self, held: StoredDomain) -> None:
        bundle = _readable(held)
        try:
            first, origin = await asyncio.to_thread(self._first)
            known_by = self._known_by(held, bundle, first, origin)
            found = await fetch(self.endpoint, known_by, self.clock.now)
            self.federation.check(found)
        except Problem as problem:
            await self._failed(held, bundle, problem)
            return
        fresh = bundle is None or not _same_origin(held, origin) or newer(bundle, found)
        if not fresh:
            _log.warning("an older foreign bundle is ignored", trust_domain=str(found.trust_domain), got=found.sequence)
        kept = found if fresh or bundle is None else bundle
        await self._answered(held, kept, origin, outcome=_outcome(bundle, found, fresh=fresh))

    def _first(self) -> tuple[Bundle | None, str]:
        """What the settings give of a bundle file, and a hash of it. Raises Unavailable only if nothing else helps."""
        path, server = self.endpoint.bundle, self.endpoint.server
        if path is None or server is None:
            return None, ""
        try:
            found = read_bundle(path, server.trust_domain)
        except Unavailable:
            if not self.endpoint.self_serving:
                raise
            return None, ""  # after the first time it is not needed
        return found, hashlib.sha256(found.to_jwks()).hexdigest()

    def _known_by(self, held: StoredDomain, bundle: Bundle | None, first: Bundle | None, origin: str) -> Bundle | None:
        """The bundle that proves the endpoint: never one of another trust domain than its own (5.2.2.2, 5.2.2.4)."""
        server = self.endpoint.server
        if self.endpoint.profile is Profile.WEB or server is None:
            return None
        if self.endpoint.self_serving:
            found = (bundle if _same_origin(held, origin) else None) or first
        elif server.trust_domain == self.federation.authority.trust_domain:
            found = self.federation.authority.bundle(self.clock.now())
        else:
            found = first or self.federation.bundles.get(server.trust_domain)
        if found is None:
            raise Unavailable(f"there is no bundle yet by which to know the endpoint `{server}`")
        return found

    async def _held(self, now: datetime) -> StoredDomain:
        """The row; made with the bundle the settings give, when there is none."""
        domain = self.endpoint.trust_domain
        found = await self.federation.database.read(lambda tx: store.get(tx, domain))
        if found is not None:
            return found
        made = await self._beginning(now)

        async def unit(tx: Transaction) -> StoredDomain:
            await store.insert(tx, made)
            return await store.get(tx, domain) or made

        row = await self.federation.database.write(unit)
        self.on_change()
        return row

    async def _beginning(self, now: datetime) -> StoredDomain:
        document, origin = None, ""
        if self.endpoint.self_serving:
            first, origin = await asyncio.to_thread(self._first)
            try:
                if first is not None:
                    self.federation.check(first)
                    document = first.to_jwks().decode()
            except Problem as problem:
                _log.error("the bundle of an endpoint can't be used", error=problem)
        return StoredDomain(
            trust_domain=self.endpoint.trust_domain,
            source=Source.ENDPOINT,
            document=document,
            origin=origin,
            fetched_at=None,
            due_at=now,
        )

    async def _answered(self, held: StoredDomain, kept: Bundle, origin: str, *, outcome: str) -> None:
        now = self.clock.now()
        self.metrics.count("sojourn_bundle_fetches_total", outcome=outcome)
        after = replace(
            held,
            source=Source.ENDPOINT,
            document=kept.to_jwks().decode(),
            origin=origin or held.origin,
            fetched_at=now,
            due_at=now + pause(kept, 0),
            failures=0,
            trouble="" if outcome != "older" else "the endpoint serves an older bundle than is held",
        )
        await self._after(after)

    async def _failed(self, held: StoredDomain, bundle: Bundle | None, problem: Problem) -> None:
        now, failures = self.clock.now(), held.failures + 1
        self.metrics.count("sojourn_bundle_fetches_total", outcome="failed" if problem.retryable else "refused")
        _log.warning("a foreign bundle can't be had", trust_domain=str(held.trust_domain), error=problem)
        trouble = str(problem)[:_LONGEST_TROUBLE]
        due = now + pause(bundle, failures)
        await self._after(replace(held, failures=failures, trouble=trouble, due_at=due))

    async def _after(self, row: StoredDomain) -> None:
        if await self._write(row):
            self._due = row.due_at
            self.on_change()
        else:
            _log.info("what was fetched is dropped: an operator spoke meanwhile", trust_domain=str(row.trust_domain))
            self.ask_now()

    async def _write(self, row: StoredDomain) -> bool:
        async def unit(tx: Transaction) -> bool:
            return await store.replace(tx, row)

        return await self.federation.database.write(unit)


def followers(federation: Federation, metrics: Metrics, clock: Clock) -> tuple[Follower, ...]:
    """One for each endpoint."""
    told = federation.changed.set
    return tuple(
        Follower(federation=federation, endpoint=one, metrics=metrics, clock=clock, on_change=told)
        for one in federation.endpoints
    )


def _readable(held: StoredDomain) -> Bundle | None:
    try:
        return document_of(held) if held.document is not None else None
    except Problem as problem:
        _log.error("a bundle in the store can't be read", trust_domain=str(held.trust_domain), error=problem)
        return None


def _same_origin(held: StoredDomain, origin: str) -> bool:
    """Whether what is held came of the bundle file there is now; one that can't be read any more changes nothing."""
    return not origin or held.origin in {"", origin}


def _members(bundle: Bundle) -> tuple[object, ...]:
    return bundle.x509_authorities, bundle.jwt_authorities, bundle.wit_authorities


def _outcome(bundle: Bundle | None, found: Bundle, *, fresh: bool) -> str:
    if not fresh:
        return "older"
    return "unchanged" if bundle is not None and _members(bundle) == _members(found) else "taken"
