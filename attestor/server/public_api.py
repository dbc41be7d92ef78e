"""What anybody may read: the trust domain's bundle and its revocation lists, over TLS with the server's own SVID.

Neither is a secret, and neither needs to be believed because of where it was read: a bundle is `https_spiffe`, a list
is signed by the authority it is of.
"""

from __future__ import annotations

from aiohttp import web

from attestor.wire.lists import RevocationListName, RevocationListNames
from ca.authority import Authority
from ca.errors import NotFound
from ca.revocation import Lists
from ca.runtime.clock import Clock
from ca.runtime.web import Call, Route


class PublicApi:
    """Reads only."""

    def __init__(self, authority: Authority, lists: Lists, clock: Clock) -> None:
        self._authority, self._lists, self._clock = authority, lists, clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (
            Route("GET", "/bundle", self.bundle, summary="The trust domain's bundle, in the SPIFFE form"),
            Route("GET", "/crl", self.lists, summary="Which revocation lists there are", answer=RevocationListNames),
            Route("GET", "/crl/{issuer}", self.list, summary="The newest revocation list of one authority, in DER"),
        )

    async def bundle(self, call: Call) -> web.Response:  # noqa: ARG002 -- the signature of a handler
        """`GET /bundle` (SPIFFE_Trust_Domain_and_Bundle.md 4)."""
        bundle = self._authority.bundle(self._clock.now())
        return web.Response(body=bundle.to_jwks(), content_type="application/json")

    async def lists(self, call: Call) -> RevocationListNames:  # noqa: ARG002 -- the signature of a handler
        """`GET /crl`: one for each authority that signs certificates."""
        return RevocationListNames(
            lists=[
                RevocationListName.of(one.issuer_key_id, one.number, one.this_update, one.next_update, one.der)
                for one in self._lists.current
            ]
        )

    async def list(self, call: Call) -> web.Response:
        """`GET /crl/{issuer}`: by the authority's key id in hex (RFC 5280, 5; RFC 2585, 4.2)."""
        for one in self._lists.current:
            if one.issuer_key_id.hex() == call.path("issuer"):
                return web.Response(body=one.der, content_type="application/pkix-crl")
        raise NotFound("there is no revocation list of that authority: `GET /crl` names them")
