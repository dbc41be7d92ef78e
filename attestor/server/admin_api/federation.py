"""Bundles of foreign trust domains: what is held, an operator's word, and asking an endpoint now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from attestor.server.admin_api.said import said
from attestor.server.federation import Federation, Follower
from attestor.server.federation.domains import document_of, shown
from attestor.server.store import federation as store
from attestor.server.store.federation import StoredDomain
from attestor.wire import admin as wire
from ca.errors import Conflict, NotFound
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.database import Transaction
from ca.runtime.web import Call, Route
from ca.spiffe.bundle import LONGEST_BUNDLE, Bundle
from ca.spiffe.id import TrustDomain

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationVerbs:
    """One for each server process."""

    federation: Federation
    followers: Sequence[Follower]
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        one = "/v1/federation/{id}"
        return (
            Route("GET", "/v1/federation", self.list, summary="Foreign trust domains", answer=wire.FederationList),
            Route("GET", one, self.show, summary="The bundle held of one, in the SPIFFE form"),
            Route(
                "POST",
                one,
                self.set,
                summary="Hold this bundle of it",
                body=wire.BundleRequest,
                answer=wire.FederationList,
                limit=LONGEST_BUNDLE * 2,
            ),
            Route("POST", f"{one}/refresh", self.refresh, summary="Ask its endpoint now", answer=wire.FederationList),
            Route("DELETE", one, self.delete, summary="Hold nothing of it", answer=wire.FederationList),
        )

    async def list(self, call: Call) -> wire.FederationList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/federation`."""
        return await self._list()

    async def show(self, call: Call) -> dict[str, object]:
        """`GET /v1/federation/{id}`."""
        domain = _domain(call)
        for one in await self.federation.stored():
            if one.trust_domain == domain and one.document is not None:
                return {"trust_domain": str(domain), "bundle": shown(document_of(one))}
        raise NotFound(f"no bundle of `{domain}` is held")

    async def set(self, call: Call) -> wire.FederationList:
        """`POST /v1/federation/{id}`."""
        asked: wire.BundleRequest = call.body
        bundle = Bundle.from_jwks(_domain(call), asked.document.encode())
        await self.federation.set(bundle, self.clock.now())
        _log.warning("foreign bundle set by an operator", trust_domain=str(bundle.trust_domain))
        self._ask(bundle.trust_domain)
        return await self._list()

    async def refresh(self, call: Call) -> wire.FederationList:
        """`POST /v1/federation/{id}/refresh`."""
        domain, now = _domain(call), self.clock.now()
        if self.federation.endpoint(domain) is None:
            raise NotFound(f"the settings name no endpoint of `{domain}`")

        async def unit(tx: Transaction) -> bool:
            held = await store.get(tx, domain)
            return held is None or await store.replace(tx, replace(held, due_at=now))

        if not await self.federation.database.write(unit):
            raise Conflict(f"`{domain}` is being asked at the moment")
        self._ask(domain)
        return await self._list()

    async def delete(self, call: Call) -> wire.FederationList:
        """`DELETE /v1/federation/{id}`."""
        domain = _domain(call)
        await self.federation.delete(domain, self.clock.now())
        _log.warning("foreign bundle deleted by an operator", trust_domain=str(domain))
        self._ask(domain)
        return await self._list()

    def _ask(self, domain: TrustDomain) -> None:
        for one in self.followers:
            if one.endpoint.trust_domain == domain:
                one.ask_now()

    async def _list(self) -> wire.FederationList:
        stored = {one.trust_domain: one for one in await self.federation.stored()}
        domains = {**stored, **{one.trust_domain: stored.get(one.trust_domain) for one in self.federation.endpoints}}
        return wire.FederationList(
            domains=[self._view(domain, domains[domain]) for domain in sorted(domains, key=lambda each: each.name)]
        )

    def _view(self, domain: TrustDomain, held: StoredDomain | None) -> wire.FederatedView:
        endpoint, bundle = self.federation.endpoint(domain), self.federation.bundles.get(domain)
        return wire.FederatedView(
            trust_domain=domain.name,
            source=str(held.source) if held else "",
            url=endpoint.url if endpoint else None,
            profile=str(endpoint.profile) if endpoint else None,
            spiffe_id=str(endpoint.server) if endpoint and endpoint.server else None,
            given_on=bundle is not None,
            sequence=bundle.sequence if bundle else None,
            x509_authorities=len(bundle.x509_authorities) if bundle else 0,
            jwt_authorities=len(bundle.jwt_authorities) if bundle else 0,
            wit_authorities=len(bundle.wit_authorities) if bundle else 0,
            fetched_at=said(held.fetched_at) if held and held.fetched_at else None,
            due_at=said(held.due_at) if held and endpoint else None,
            failures=held.failures if held else 0,
            trouble=self.federation.refused.get(domain) or (held.trouble if held else ""),
        )


def _domain(call: Call) -> TrustDomain:
    return TrustDomain.parse(call.path("id"))
