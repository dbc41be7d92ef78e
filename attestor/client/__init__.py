"""What a workload imports: live sources of its identity, TLS contexts that follow them, matchers for peers.

    async with X509Source.open() as source:
        async with client_session(source, IdPattern.parse("spiffe://example.org/broker")) as session:
            ...

Servers of aiohttp stand behind `guard`, and their handlers know their `peer` for as long as a connection lives.

Works with every SPIFFE Workload API, ours or another. Process ends (`attestor.client.tasks`) and the operators' verbs
(`attestor.client.admin`) are for a server of ours.
"""

from __future__ import annotations

from attestor.client.errors import NoIdentity, Unreachable, Unsupported
from attestor.client.guard import PeerStream, guard, peer, still
from attestor.client.http import client_session, server_of
from attestor.client.source import JwtSource, X509Source
from attestor.client.tls import client_context, server_context
from attestor.client.workload_api import WorkloadApiClient
from ca.spiffe.match import IdPattern

__all__ = [
    "IdPattern",
    "JwtSource",
    "NoIdentity",
    "PeerStream",
    "Unreachable",
    "Unsupported",
    "WorkloadApiClient",
    "X509Source",
    "client_context",
    "client_session",
    "guard",
    "peer",
    "server_context",
    "server_of",
    "still",
]
