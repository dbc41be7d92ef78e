"""What a workload imports: live sources of its identity, TLS contexts that follow them, matchers for peers.

    async with X509Source.open() as source:
        async with client_session(source, IdPattern.parse("spiffe://example.org/broker")) as session:
            ...

Works with every SPIFFE Workload API, ours or another. Process ends (`attestor.client.tasks`) and the operators' verbs
(`attestor.client.admin`) are for a server of ours.
"""

from __future__ import annotations

from attestor.client.errors import NoIdentity, Unreachable, Unsupported
from attestor.client.http import client_session
from attestor.client.source import JwtSource, X509Source
from attestor.client.tls import client_context, server_context
from attestor.client.workload_api import WorkloadApiClient
from ca.spiffe.match import IdPattern

__all__ = [
    "IdPattern",
    "JwtSource",
    "NoIdentity",
    "Unreachable",
    "Unsupported",
    "WorkloadApiClient",
    "X509Source",
    "client_context",
    "client_session",
    "server_context",
]
