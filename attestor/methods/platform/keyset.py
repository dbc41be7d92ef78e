"""The public keys of one issuer: discovered, fetched, kept, and asked for again no oftener than is polite.

The issuer is pinned: its document must name exactly the issuer the settings name. Keys are kept for a while, and an
unknown `kid` has them fetched again, but only so often: tokens with invented ids must not make us hammer anybody. When
the issuer does not answer, the pause doubles, and the keys there are hold for a bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attestor.methods.platform.protocol import Count, counted, uncounted
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime.clock import Clock
from ca.runtime.fetch import Fetched, Fetcher, parse_url
from ca.spiffe import jwk, strict_json
from ca.spiffe.jwk import PublicKey

FRESH = 600.0
"""Seconds for which keys are not asked for again, unless one is missing."""
STALE = 6 * 3600.0
"""Seconds for which keys hold while the issuer does not answer."""
QUICKEST = 10.0
"""Seconds between two fetches for the sake of an unknown id."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
LARGEST = 256 * 1024
MOST_KEYS = 100


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key, and the only algorithm it is for; empty when the issuer does not say."""

    key_id: str
    key: PublicKey
    algorithm: str


@dataclass(slots=True)
class KeySet:
    """One issuer's."""

    issuer: str
    fetcher: Fetcher
    clock: Clock
    count: Count = uncounted
    _keys: Mapping[str, tuple[IssuerKey, ...]] = field(default_factory=dict)
    _fetched: float | None = None
    _next: float = 0.0
    _pause: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def find(self, key_id: str) -> Sequence[IssuerKey]:
        """The keys of that id; none when the issuer has none. Raises Unavailable."""
        fresh = self._fetched is not None and self.clock.boot() - self._fetched < FRESH
        if fresh and key_id in self._keys:
            return self._keys[key_id]  # nobody who knows his key waits for those who invent one
        await self._refresh(missing=False)
        if key_id not in self._keys:
            await self._refresh(missing=True)
        return self._keys.get(key_id, ())

    async def _refresh(self, *, missing: bool) -> None:
        async with self._turn:
            now = self.clock.boot()
            age = now - self._fetched if self._fetched is not None else None
            if age is not None and age < (QUICKEST if missing else FRESH):
                return
            if now >= self._next:
                try:
                    with counted(self.count, "keys"):
                        self._keys = await self._fetch()
                except Problem:
                    self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
                    self._next = now + self._pause
                else:
                    self._fetched, self._pause = now, 0.0
                    return
            if age is None or age > STALE:
                self._keys = {}
                raise Unavailable(f"the keys of the issuer `{self.issuer}` can't be had at the moment")

    async def _fetch(self) -> Mapping[str, tuple[IssuerKey, ...]]:
        """Raises Unavailable, Malformed."""
        document = _document(await self.fetcher.get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"))
        if document.get("issuer") != self.issuer:
            raise Malformed("the discovery document is another issuer's")
        where = document.get("jwks_uri")
        if not isinstance(where, str):
            raise Malformed("the discovery document names no keys")
        found = _document(await self.fetcher.get(str(parse_url(where)))).get("keys")
        if not isinstance(found, list) or len(found) > MOST_KEYS:
            raise Malformed("the issuer's key set is not one")
        keys: dict[str, tuple[IssuerKey, ...]] = {}
        for one in found:
            key = _key(one)
            if key is not None:
                keys[key.key_id] = (*keys.get(key.key_id, ()), key)
        return keys


def _document(answer: Fetched) -> dict[str, Any]:
    if answer.status != 200:
        raise Unavailable(f"the issuer answers with status {answer.status}")
    return strict_json.read_object(answer.body, "an issuer's document", LARGEST)


def _key(element: object) -> IssuerKey | None:
    """A key for signatures; whatever else stands in a set is passed over, symmetric and private keys too."""
    if not isinstance(element, dict) or element.get("use", "sig") != "sig":
        return None
    key_id, key = element.get("kid"), jwk.read_key(element)
    algorithm = element.get("alg", "")
    if key is None or not isinstance(key_id, str) or not key_id or not isinstance(algorithm, str):
        return None
    return IssuerKey(key_id, key, algorithm)
