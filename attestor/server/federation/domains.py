"""The foreign bundles that are given on: one for each trust domain, never pooled, never of our own.

What is held rests in the store, so it outlives an endpoint that is away, a restart, and the other servers see it. Given
on is what is held of a domain that the settings name or an operator gave; the rest is kept and silent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from attestor.rules.owner import EVERY_DOMAIN
from attestor.server.federation.clash import clash
from attestor.server.federation.endpoint import Endpoint, check_size
from attestor.server.store import federation as store
from attestor.server.store.federation import Source, StoredDomain
from attestor.wire.node import BundleDocument
from ca.authority import Authority
from ca.errors import Conflict, Malformed, NotFound, Stale
from ca.runtime import log
from ca.runtime.database import Database, Transaction
from ca.runtime.process import Wake
from ca.spiffe.bundle import Bundle
from ca.spiffe.id import TrustDomain

MOST_DOMAINS = 64
_log = log.get(__name__)


@dataclass(slots=True, kw_only=True)
class Federation:
    """One for each server process."""

    database: Database
    authority: Authority
    endpoints: Sequence[Endpoint] = ()
    bundles: Mapping[TrustDomain, Bundle] = field(default_factory=dict)
    """What is given on."""
    refused: Mapping[TrustDomain, str] = field(default_factory=dict)
    """What is held and not given on, and why."""
    changed: Wake = field(default_factory=Wake)
    """Set when the store was given something."""
    _read: Mapping[str, Bundle] = field(default_factory=dict)
    _subscribers: list[Callable[[], object]] = field(default_factory=list)

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Call `callback` after every change of what is given on."""
        self._subscribers.append(callback)

    async def tick(self, now: datetime) -> None:  # noqa: ARG002 -- the signature of a tick
        """Notice what this and other servers fetched, and what became of our own keys. Raises Unavailable."""
        stored = await self.database.read(store.everything)
        given, refused, read = self._judged(stored)
        for domain, why in refused.items():
            if self.refused.get(domain) != why:
                _log.error("a foreign bundle is not given on", trust_domain=str(domain), reason=why)
        changed = given != self.bundles
        self.bundles, self.refused, self._read = given, refused, read
        if changed:
            _log.info("foreign bundles changed", trust_domains=[str(domain) for domain in given])
            for callback in self._subscribers:
                callback()

    def documents(self, wanted: Collection[str]) -> tuple[BundleDocument, ...]:
        """The bundles of the trust domains named, each with its domain; `*` names every one."""
        return tuple(
            BundleDocument(trust_domain=domain, document=bundle.to_jwks())
            for domain, bundle in self.bundles.items()
            if domain.name in wanted or EVERY_DOMAIN in wanted
        )

    def check(self, bundle: Bundle) -> None:
        """Whether it may be held at all. Raises Malformed, Conflict: it is, or holds, what is ours."""
        if bundle.trust_domain == self.authority.trust_domain:
            raise Conflict("the bundle of our own trust domain is never taken from outside")
        check_size(bundle)
        found = clash(self.authority, bundle)
        if found is not None:
            raise Malformed(found)

    async def set(self, bundle: Bundle, now: datetime) -> None:
        """An operator's word: held from now on, whatever was held before. Raises Malformed, Conflict, Stale."""
        self.check(bundle)

        async def unit(tx: Transaction) -> None:
            held = await store.get(tx, bundle.trust_domain)
            if held is None and len(await store.everything(tx)) >= MOST_DOMAINS:
                raise Conflict(f"there are {MOST_DOMAINS} foreign trust domains already: delete one")
            word = StoredDomain(
                trust_domain=bundle.trust_domain,
                source=Source.OPERATOR,
                document=bundle.to_jwks().decode(),
                origin="",
                fetched_at=held.fetched_at if held else None,
                due_at=now,
                version=held.version if held else 0,
            )
            if not await (store.replace(tx, word) if held else store.insert(tx, word)):
                raise Stale(f"the bundle of `{bundle.trust_domain}` was changed at the same moment")

        await self.database.write(unit)
        await self.tick(now)

    async def delete(self, trust_domain: TrustDomain, now: datetime) -> None:
        """Hold nothing of it; one with an endpoint begins anew. Raises NotFound."""
        if not await self.database.write(lambda tx: store.delete(tx, trust_domain)):
            raise NotFound(f"no bundle of `{trust_domain}` is held")
        await self.tick(now)

    async def stored(self) -> Sequence[StoredDomain]:
        """Everything that is held, given on or not."""
        return await self.database.read(store.everything)

    def endpoint(self, trust_domain: TrustDomain) -> Endpoint | None:
        """The one the settings name."""
        return next((one for one in self.endpoints if one.trust_domain == trust_domain), None)

    def _judged(
        self, stored: Sequence[StoredDomain]
    ) -> tuple[dict[TrustDomain, Bundle], dict[TrustDomain, str], dict[str, Bundle]]:
        given: dict[TrustDomain, Bundle] = {}
        refused: dict[TrustDomain, str] = {}
        read: dict[str, Bundle] = {}
        for one in stored:
            if one.document is None or not (one.source is Source.OPERATOR or self.endpoint(one.trust_domain)):
                continue
            key = f"{one.trust_domain} {one.document}"
            try:
                read[key] = bundle = self._read.get(key) or document_of(one)
                self.check(bundle)
            except (Malformed, Conflict) as problem:
                refused[one.trust_domain] = str(problem)
            else:
                given[one.trust_domain] = bundle
        return given, refused, read


def document_of(stored: StoredDomain) -> Bundle:
    """The bundle of a row that has one. Raises Malformed."""
    assert stored.document is not None, "the caller looked"
    return Bundle.from_jwks(stored.trust_domain, stored.document.encode())


def shown(bundle: Bundle) -> object:
    """In the SPIFFE form, for JSON."""
    return json.loads(bundle.to_jwks())
