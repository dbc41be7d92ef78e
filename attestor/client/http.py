"""aiohttp with contexts that follow a source.

A server needs nothing but `attestor.client.tls.server_context`, which looks at its material in each handshake. A client
pools connections, and a pooled one goes on with the certificate it began with; here each version of the material has
its own context, and aiohttp never reuses a connection for another context. So the first request after a rotation opens
a new connection and those before it are closed when they have idled.
"""

from __future__ import annotations

from typing import Any

from aiohttp import ClientRequest, ClientSession, TCPConnector

from attestor.client.source import X509Material
from attestor.client.tls import Authorize, ClientContexts, Refused


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

    options.setdefault("connector", TCPConnector())
    return ClientSession(request_class=FollowingRequest, **options)
