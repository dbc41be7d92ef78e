"""Always the current SVID: sources that hold a Workload API stream open and come back after every break.

What the API says replaces everything it said before (WL-4, WL-7). When it says that this process has no identity any
more, the SVIDs are dropped at once and stop being used (WL-11). When it merely can't be reached they stay, as long as
they are valid: the issuer may be restarting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from attestor.client.backoff import Backoff
from attestor.client.beside import beside
from attestor.client.errors import NoIdentity, Unsupported
from attestor.client.workload_api import WorkloadApiClient, X509Context
from ca.errors import Malformed, Problem
from ca.runtime import log
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.leaving import still_wanted
from ca.spiffe import x509svid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.endpoint import Endpoint
from ca.spiffe.id import SpiffeId
from ca.spiffe.jwtsvid import JwtSvid
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Peer, X509Svid

T = TypeVar("T")
Waiting = Callable[[Problem], object]
"""Told what a source waits for, each time it could not get an answer."""

_MOST_TOKENS = 256
_log = log.get(__name__)


class X509Material(Protocol):
    """What TLS contexts need of a source."""

    @property
    def clock(self) -> Clock:
        """By which peers' certificates are judged."""

    @property
    def svid(self) -> X509Svid:
        """The identity to show. Raises NoIdentity when there is none."""

    @property
    def bundles(self) -> BundleSet:
        """Whom to believe."""

    @property
    def revocations(self) -> RevocationLists:
        """What their authorities have taken back; empty where the issuer tells of none."""


@dataclass(slots=True, eq=False)
class _Followed(Generic[T]):
    """The newest value of a stream, or why there is none."""

    empty: T
    value: T
    trouble: Problem | None = None
    first: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    callbacks: list[Callable[[], object]] = field(default_factory=list)

    def put(self, value: T, trouble: Problem | None = None) -> None:
        self.value, self.trouble = value, trouble
        if trouble is None:
            self.first.set()
        self.changed.set()
        self.changed = asyncio.Event()
        for callback in tuple(self.callbacks):
            callback()


async def _follow(
    followed: _Followed[T], watch: Callable[[], AsyncGenerator[T, None]], clock: Clock, waiting: Waiting | None
) -> None:
    """Watch for ever. Ends with an error only where asking again can't help."""
    backoff = Backoff(clock)
    while True:
        try:
            async with aclosing(watch()) as updates:
                async for update in updates:
                    backoff.reset()
                    followed.put(update)
        except Unsupported:
            raise
        except NoIdentity as error:
            if followed.value is not followed.empty:
                _log.warning("the identity was withdrawn", error=error)
            followed.put(followed.empty, error)
            _tell(waiting, error)
        except Malformed as error:  # an answer that breaks the standard is discarded; what was said before stays
            if not followed.first.is_set():
                raise
            _log.warning("the Workload API sent an answer that is no use", error=error)
        except Problem as error:
            _tell(waiting, error)
        still_wanted()
        await backoff.wait()


def _tell(waiting: Waiting | None, error: Problem) -> None:
    _log.debug("no answer from the Workload API", error=error)
    if waiting is not None:
        waiting(error)


class X509Source:
    """The X.509-SVIDs of this process and the bundles to judge others by; made by `open`."""

    def __init__(self, clock: Clock) -> None:
        nothing = X509Context(svids=(), bundles=BundleSet.of())
        self.clock = clock
        self._followed = _Followed(nothing, nothing)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        address: Endpoint | str | None = None,
        clock: Clock | None = None,
        *,
        waiting: Waiting | None = None,
    ) -> AsyncIterator[X509Source]:
        """Follow the Workload API at `address`; ready once it has given an identity, however long that takes.

        `waiting` is told each time it did not. Raises Malformed or Unsupported when asking again can't help.
        """
        async with (
            WorkloadApiClient(address) as api,
            cls.fed_by(api.watch_x509, clock or SystemClock(), waiting=waiting) as source,
        ):
            yield source

    @classmethod
    @asynccontextmanager
    async def fed_by(
        cls, watch: Callable[[], AsyncGenerator[X509Context, None]], clock: Clock, *, waiting: Waiting | None = None
    ) -> AsyncIterator[X509Source]:
        """Follow `watch`, called again after each break; ready once it has given an identity. Raises as `open` does."""
        source = cls(clock)
        async with beside(_follow(source._followed, watch, clock, waiting)):
            await source._followed.first.wait()
            yield source

    @property
    def svid(self) -> X509Svid:
        """The default identity: the first one. Raises NoIdentity while there is none."""
        held = self.svids  # read once: other threads may ask
        if not held:
            raise NoIdentity("this process has no identity any more") from self._followed.trouble
        return held[0]

    @property
    def svids(self) -> tuple[X509Svid, ...]:
        """All identities, the default one first."""
        return self._followed.value.svids

    @property
    def bundles(self) -> BundleSet:
        """Whom to believe, by trust domain."""
        return self._followed.value.bundles

    @property
    def revocations(self) -> RevocationLists:
        """What authorities have taken back, as far as the issuer tells it."""
        return self._followed.value.revocations

    def still_good(self, peer: X509Peer, now: datetime) -> None:
        """For each request or event of a connection that stays open: `peer` could prove itself now as it did then.

        Raises:
            Untrusted: its certificate has expired, or its authority is not believed any more.
            Revoked: it was taken back.
        """
        x509svid.check_still(peer, self.bundles, now, self.revocations)

    def by_hint(self, hint: str) -> X509Svid:
        """The identity with this hint. Raises NoIdentity when there is none."""
        for svid in self.svids:
            if svid.hint == hint:
                return svid
        raise NoIdentity(f"this process has no identity with the hint `{hint}`")

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` called after each change; call what is returned to end that."""
        return _subscribe(self._followed, callback)

    async def changed(self) -> AsyncIterator[None]:
        """Yield once at the start and after each change."""
        async for _ in _changes(self._followed):
            yield


class JwtSource:
    """JWT-SVIDs of this process, kept until half their life, and the bundles to judge others by; made by `open`."""

    def __init__(self, api: WorkloadApiClient, clock: Clock) -> None:
        nothing = BundleSet.of()
        self.clock = clock
        self._api = api
        self._followed = _Followed(nothing, nothing)
        self._tokens: dict[tuple[SpiffeId | None, tuple[str, ...]], tuple[datetime, JwtSvid]] = {}
        self._asking = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        address: Endpoint | str | None = None,
        clock: Clock | None = None,
        *,
        waiting: Waiting | None = None,
    ) -> AsyncIterator[JwtSource]:
        """Follow the Workload API at `address`; ready once it has given its JWT bundles."""
        async with WorkloadApiClient(address) as api:
            source = cls(api, clock or SystemClock())
            source.subscribe(source._tokens.clear)  # one of a key that is no longer believed is not given again
            async with beside(_follow(source._followed, api.watch_jwt_bundles, source.clock, waiting)):
                await source._followed.first.wait()
                yield source

    @property
    def bundles(self) -> BundleSet:
        """Whom to believe, by trust domain."""
        return self._followed.value

    async def fetch(self, audience: Sequence[str], spiffe_id: SpiffeId | None = None) -> JwtSvid:
        """A token for `audience` of `spiffe_id`, or of the default identity.

        One is asked for when the one we have is past half its life; while the issuer can't be reached the old one is
        given as long as it is valid.
        """
        key = (spiffe_id, tuple(audience))
        async with self._asking:
            now = self.clock.now()
            half_life, known = self._tokens.get(key, (now, None))
            if known is not None and now < half_life:
                return known
            try:
                fresh = (await self._api.fetch_jwt(audience, spiffe_id))[0]
            except NoIdentity:
                self._tokens.pop(key, None)
                raise
            except Problem as error:
                if known is not None and error.retryable and now < known.expires_at:
                    return known
                raise
            if len(self._tokens) >= _MOST_TOKENS:
                self._tokens.pop(next(iter(self._tokens)))
            self._tokens[key] = (now + (fresh.expires_at - now) / 2, fresh)
            return fresh

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have `callback` called after each change of the bundles; call what is returned to end that."""
        return _subscribe(self._followed, callback)


def _subscribe(followed: _Followed[T], callback: Callable[[], object]) -> Callable[[], None]:
    followed.callbacks.append(callback)

    def end() -> None:
        if callback in followed.callbacks:
            followed.callbacks.remove(callback)

    return end


async def _changes(followed: _Followed[T]) -> AsyncIterator[None]:
    while True:
        changed = followed.changed
        yield
        await changed.wait()
