"""aiohttp clients with contexts that follow a source.

A client pools connections, and a pooled one goes on with the certificates it began with. Here each version of the
material has its own context, and aiohttp never reuses a connection for another context: the first request after a
rotation opens a new connection, those in use finish, and the others are closed when they have idled. And a pooled
connection is used again only if its server could still prove itself: not when its SVID has expired or was taken back.
Servers: `attestor.client.guard`.
"""

from __future__ import annotations

from typing import Any

from aiohttp import (
    ClientConnectionError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    TCPConnector,
)

from attestor.client.source import X509Material
from attestor.client.tls import Authorize, ClientContexts, Refused, check_still
from ca.errors import Problem
from ca.spiffe.x509svid import X509Peer
from ca.tls import peer_of

_MOST_TRIES = 100
"""Of a request: more pooled connections than aiohttp keeps, so that the last try is in a new one."""


def client_session(
    source: X509Material, expect: Authorize, *, refused: Refused | None = None, **options: Any
) -> ClientSession:
    """A session that shows the newest SVID and speaks only to servers `expect` wants; `options` are aiohttp's.

    A request raises NoIdentity while the source has none; a server that is not wanted is refused before it gets a byte.
    """
    contexts = ClientContexts(source, expect, refused=refused)

    class FollowingRequest(ClientRequest):
        def __init__(self, *arguments: Any, **rest: Any) -> None:
            super().__init__(*arguments, **{**rest, "ssl": contexts.newest()})

        async def send(self, conn: Any) -> ClientResponse:
            _check_server(source, expect, conn.transport)
            return await super().send(conn)

    options.setdefault("connector", TCPConnector())
    options["middlewares"] = (*options.get("middlewares", ()), _in_another)
    return ClientSession(request_class=FollowingRequest, **options)


def server_of(answer: ClientResponse) -> X509Peer | None:
    """Who sends this answer, for streams that stay open; None when it has ended.

    A reader of events asks `X509Source.still_good` about it, before it believes the next one.
    """
    connection = answer.connection
    return None if connection is None else _peer(connection.transport)


class _OutOfDate(ClientConnectionError):
    """A pooled connection to a server that could not prove itself any more; nothing was sent."""


def _check_server(source: X509Material, expect: Authorize, transport: Any) -> None:
    server = _peer(transport)
    if server is None:
        return  # it broke meanwhile, and sending says so
    try:
        check_still(source, server, expect)
    except Problem as problem:
        raise _OutOfDate(str(problem)) from problem


def _peer(transport: Any) -> X509Peer | None:
    found = None if transport is None else peer_of(transport.get_extra_info("ssl_object"))
    return found if isinstance(found, X509Peer) else None


async def _in_another(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Send it in a connection whose server is still good: aiohttp has closed the one that was not."""
    for _ in range(_MOST_TRIES):
        try:
            return await handler(request)
        except _OutOfDate:
            continue
    return await handler(request)
