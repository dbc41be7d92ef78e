"""What anybody may read: the trust domain's bundle, its revocation lists, and the discovery of OpenID Connect.

None of it is a secret. The bundle is served over TLS with the server's own SVID (`https_spiffe`) and, where the
settings name a certificate for it, as any web server is (`https_web`); nobody is asked who he is (SPIFFE_Federation.md
5). A list is signed by the authority it is of. An answer may be kept no longer than a new key is shown before it signs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable

from aiohttp import web
from yarl import URL

from attestor.wire.lists import RevocationListName, RevocationListNames
from ca.authority import Authority
from ca.errors import NotFound
from ca.revocation import Lists
from ca.runtime.clock import Clock
from ca.runtime.web import Call, Route
from ca.spiffe import jwk
from ca.spiffe.bundle import Bundle

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"

_Read = Callable[[Call], Awaitable[web.Response]]


class PublicApi:
    """Reads only."""

    def __init__(self, authority: Authority, lists: Lists, clock: Clock) -> None:
        self._authority, self._lists, self._clock = authority, lists, clock
        self._issuer = authority.settings.jwt_issuer

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (
            *_both("/bundle", self.bundle, "The trust domain's bundle, in the SPIFFE form"),
            Route("GET", "/crl", self.lists, summary="Which revocation lists there are", answer=RevocationListNames),
            Route("GET", "/crl/{issuer}", self.list, summary="The newest revocation list of one authority, in DER"),
            *self._discovery(),
        )

    def _discovery(self) -> tuple[Route, ...]:
        if not self._issuer:
            return ()
        below = URL(self._issuer).path.rstrip("/")
        return (
            *_both(below + DISCOVERY, self.discovery, "What a verifier of JWT-SVIDs needs, as OpenID Connect has it"),
            *_both(below + KEYS, self.keys, "The keys that sign JWT-SVIDs, as OpenID Connect has them"),
        )

    async def bundle(self, call: Call) -> web.Response:
        """`GET /bundle` (SPIFFE_Trust_Domain_and_Bundle.md 4)."""
        bundle = self._bundle()
        return self._document(call, bundle.to_jwks())

    async def discovery(self, call: Call) -> web.Response:
        """`GET /.well-known/openid-configuration` (OpenID Connect Discovery 1.0, 3 and 4).

        Nobody logs in here, so there is no authorization endpoint; readers want the member all the same.
        """
        bundle = self._bundle()
        algorithms = {jwk.algorithms_of(key)[0] for key in bundle.jwt_authorities.values()}
        document = {
            "issuer": self._issuer,
            "jwks_uri": self._issuer.rstrip("/") + KEYS,
            "authorization_endpoint": "",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted(algorithms),
        }
        return self._document(call, json.dumps(document, separators=(",", ":")).encode())

    async def keys(self, call: Call) -> web.Response:
        """`GET /keys` (RFC 7517, 5): the JWT authorities of every server, and no other key."""
        bundle = self._bundle()
        keys = [jwk.of_openid_key(key_id, key) for key_id, key in bundle.jwt_authorities.items()]
        return self._document(call, json.dumps({"keys": keys}, separators=(",", ":")).encode())

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

    def _bundle(self) -> Bundle:
        return self._authority.bundle(self._clock.now())

    def _document(self, call: Call, body: bytes) -> web.Response:
        """JSON with a name for its content, which a reader may ask again by (RFC 9110, 13.1.2)."""
        tag = hashlib.sha256(body).hexdigest()[:32]
        seconds = int(self._authority.settings.wait.total_seconds())
        headers = {"ETag": f'"{tag}"', "Cache-Control": f"max-age={seconds}" if seconds else "no-cache"}
        if any(one.value in {tag, "*"} for one in call.request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)


def _both(path: str, read: _Read, summary: str) -> tuple[Route, Route]:
    return Route("GET", path, read, summary=summary), Route("HEAD", path, read, summary=summary)
