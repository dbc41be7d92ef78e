"""What anybody may read: the trust domain's bundle, over TLS with the server's own SVID (`https_spiffe`)."""

from __future__ import annotations

from aiohttp import web

from ca.authority import Authority
from ca.runtime.clock import Clock
from ca.runtime.web import Call, Route


class PublicApi:
    """Reads only."""

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority, self._clock = authority, clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (Route("GET", "/bundle", self.bundle, summary="The trust domain's bundle, in the SPIFFE form"),)

    async def bundle(self, call: Call) -> web.Response:  # noqa: ARG002 -- the signature of a handler
        """`GET /bundle` (SPIFFE_Trust_Domain_and_Bundle.md 4)."""
        bundle = self._authority.bundle(self._clock.now())
        return web.Response(body=bundle.to_jwks(), content_type="application/json")
