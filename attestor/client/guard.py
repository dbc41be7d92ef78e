"""aiohttp servers whose handlers know their peer, in every request and for as long as a connection lives.

    app = web.Application()
    context = guard(app, source, IdPattern.parse("spiffe://example.org/web/**"))
    app.router.add_get("/", handler)          # in which `peer(request)` is an X509Peer
    web.run_app(app, ssl_context=context)

The handshake lets in who proves itself (`attestor.client.tls`); a connection may live for days after it. So each
request asks again whether its peer could prove itself now: one that expired, was taken back, lost its authority or is
not wanted any more is answered 401 or 403 and the connection closed. A request that goes on, a stream of events or a
WebSocket, is cut within a second of that, and a `PeerStream` before its next write. A request that came without the
handshake, by a listener without this context, is nobody's and answered 401.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl

from aiohttp import ClientConnectionResetError, web
from aiohttp.typedefs import Handler

from attestor.client.source import X509Material
from attestor.client.tls import Authorize, Refused, check_still, server_context
from ca.errors import Problem, Unauthenticated
from ca.runtime import log
from ca.runtime.problem import CONTENT_TYPE, document, status_of
from ca.spiffe.x509svid import X509Peer
from ca.tls import peer_of

SWEEP = 1.0
"""Seconds after which an open request of a peer that is not good any more is cut."""

_PEER = web.RequestKey("sojourn_peer", X509Peer)
_log = log.get(__name__)


class _Guard:
    """Asks about the peers of one application, and holds those whose requests go on."""

    def __init__(self, source: X509Material, authorize: Authorize | None, refused: Refused | None) -> None:
        self._source, self._authorize, self._refused = source, authorize, refused
        self._open: dict[asyncio.BaseTransport, X509Peer] = {}
        self._sweeping = False

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request[_GUARD] = self
        try:
            request[_PEER] = found = self.still(request)
        except Problem as problem:
            self._told(problem)
            return _refusal(problem)
        transport = request.transport
        assert transport is not None, "a request without one has no peer"
        self._open[transport] = found
        self._sweep_later()
        try:
            return await handler(request)
        finally:
            self._open.pop(transport, None)

    def still(self, request: web.Request) -> X509Peer:
        transport = request.transport
        found = None if transport is None else peer_of(transport.get_extra_info("ssl_object"))
        if not isinstance(found, X509Peer):
            raise Unauthenticated("this request came without an SVID")
        check_still(self._source, found, self._authorize)
        return found

    def cut(self, transport: asyncio.BaseTransport | None, problem: Problem) -> None:
        """End a connection at once; what is still to be written is not sent."""
        self._told(problem)
        if isinstance(transport, asyncio.WriteTransport):
            self._open.pop(transport, None)
            transport.abort()

    def _sweep_later(self) -> None:
        if self._open and not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        for transport, found in tuple(self._open.items()):
            problem = self._judged(found)
            if problem is not None:
                self.cut(transport, problem)
        self._sweep_later()

    def _judged(self, found: X509Peer) -> Problem | None:
        """Why it is not good any more. What can't be judged is not good, and keeps nobody else from being judged."""
        try:
            check_still(self._source, found, self._authorize)
        except Problem as problem:
            return problem
        except Exception as error:  # noqa: BLE001  # `authorize` is not ours
            _log.error("a peer could not be judged", error=error, peer=str(found.id))
            return Unauthenticated("whether this peer is still good could not be told")
        return None

    def _told(self, problem: Problem) -> None:
        _log.warning("a client was refused", reason=str(problem), code=problem.code)
        if self._refused is not None:
            self._refused(problem)


_GUARD = web.RequestKey("sojourn_guard", _Guard)


def guard(
    app: web.Application, source: X509Material, authorize: Authorize | None = None, *, refused: Refused | None = None
) -> ssl.SSLContext:
    """Have `app` know its peers; answers the context to listen with. `refused` is told of whom was not served."""
    app.middlewares.insert(0, _Guard(source, authorize, refused).serve)
    return server_context(source, authorize, refused=refused)


def peer(request: web.Request) -> X509Peer:
    """Who sent this request, proven. Raises KeyError: no guard stands before this application."""
    return request[_PEER]


def still(request: web.Request) -> X509Peer:
    """The peer of a request that goes on, if it would be let in now.

    Raises:
        Untrusted: its certificate has expired, or its authority is not believed any more.
        Revoked: it was taken back.
        PeerUnwanted: it is not wanted any more.
    """
    return request[_GUARD].still(request)


class PeerStream(web.StreamResponse):
    """A stream of events that asks before each write whether its peer is still good, and is cut when it is not."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """As any. Raises ClientConnectionResetError, as when the client had gone; the cause says why."""
        assert self._req is not None, "prepare() comes before write()"
        request = self._req
        assert isinstance(request, web.Request)
        try:
            still(request)
        except Problem as problem:
            request[_GUARD].cut(request.transport, problem)
            raise ClientConnectionResetError("the peer is not good any more") from problem
        await super().write(data)


def _refusal(problem: Problem) -> web.Response:
    body = document(problem, secrets.token_hex(8))
    response = web.json_response(body, status=status_of(problem), content_type=CONTENT_TYPE)
    response.force_close()
    return response
