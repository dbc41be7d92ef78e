"""The signing authorities, and the bundle they make up."""

from __future__ import annotations

import json
from dataclasses import dataclass

from attestor.server.admin_api.said import said
from attestor.wire import admin as wire
from ca.authority import Authority
from ca.runtime.clock import Clock
from ca.runtime.database import Database
from ca.runtime.web import Call, Route
from ca.store import everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """One for each server process."""

    authority: Authority
    database: Database
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (
            Route("GET", "/v1/bundle", self.bundle, summary="The trust domain's bundle, in the SPIFFE form"),
            Route("GET", "/v1/authorities", self.authorities, summary="Authorities", answer=wire.AuthorityList),
        )

    async def bundle(self, call: Call) -> dict[str, object]:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/bundle`."""
        bundle = self.authority.bundle(self.clock.now())
        return {
            "trust_domain": str(bundle.trust_domain),
            "root_key_hash": self.authority.root_key_hash(self.clock.now()),
            "bundle": json.loads(bundle.to_jwks()),
        }

    async def authorities(self, call: Call) -> wire.AuthorityList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/authorities`."""
        found = await self.database.read(everything)
        return wire.AuthorityList(
            authorities=[
                wire.AuthorityView(
                    key_id=one.key_id.hex(), kind=one.kind, state=one.state, not_after=said(one.not_after)
                )
                for one in found
            ]
        )
