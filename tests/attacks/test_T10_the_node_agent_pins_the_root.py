"""Traps 10: the product's own node agent, between an operator's token and somebody who wants it.

The man in the middle has a root and a server of its own, or a good certificate of ours that is not the server's.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestor._proto import node_pb2 as pb
from attestor.methods.node.join_token import JoinToken
from attestor.node_agent.admission import Address
from attestor.node_agent.identity import NodeIdentity
from attestor.node_agent.joining import ByToken
from attestor.server.serve import Server, serve
from attestor.wire.answers import Unreachable
from attestor.wire.node import ATTEST
from ca.errors import Unauthenticated
from ca.runtime import grpc
from ca.runtime.clock import SystemClock
from ca.runtime.process import Readiness
from ca.runtime.secret import Secret
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import TrustDomain
from ca.tls import TlsMaterial, server_context
from fakes.node_client import server_settings

DOMAIN, CLOCK = TrustDomain.parse("example.org"), SystemClock()


def running(folder: Path) -> AbstractAsyncContextManager[Server]:
    """A server on real sockets."""
    folder.mkdir(exist_ok=True)
    return serve(server_settings(folder), CLOCK, Readiness())


async def join(at: Server | tuple[str, int], token: JoinToken) -> NodeIdentity:
    """As a node agent does on first contact."""
    host, port = at if isinstance(at, tuple) else at.address
    secret = Secret(token.reveal())
    return await ByToken(lambda: secret).join(Address(host, port, DOMAIN), CLOCK.now)


async def test_it_does_not_speak_to_an_impostor(tmp_path: Path) -> None:
    """Same trust domain, same name, another root: not a byte of the token leaves, and it still works."""
    async with asyncio.timeout(60), running(tmp_path / "real") as real, running(tmp_path / "impostor") as impostor:
        token = await real.issue_token("n")
        with pytest.raises(Unreachable):
            await join(impostor, token)
        assert str((await join(real, token)).svid.id) == "spiffe://example.org/sojourn/node/n"
        with pytest.raises(Unauthenticated):
            await join(real, token)


async def test_a_certificate_of_ours_is_not_the_server_s(tmp_path: Path) -> None:
    """Another node of the same root sits in between: its chain is good, and it is not who is expected."""
    seen: list[bytes] = []

    async def listen_in(call: grpc.GrpcCall) -> None:
        seen.append((await call.recv()).SerializeToString())

    async with asyncio.timeout(60), running(tmp_path / "real") as real:
        bad = await join(real, await real.issue_token("bad"))
        token = await real.issue_token("n")
        root = bad.bundle.x509_authorities[0]
        plain = TlsMaterial.of(bad.svid, BundleSet.of(bad.bundle))
        shown = TlsMaterial(
            chain_pem=plain.chain_pem + root.public_bytes(Encoding.PEM),
            key_pem=plain.key_pem,
            anchors_der=plain.anchors_der,
        )
        context = server_context(
            lambda: shown, lambda _: None, on_refusal=lambda _: None, client_certificate=False, alpn=["h2"]
        )
        methods = [grpc.bidi(ATTEST, listen_in, pb.AttestRequest, pb.AttestResponse)]
        async with grpc.listen_tls(methods, host="127.0.0.1", port=0, ssl=context) as there:
            with pytest.raises(Unreachable):
                await join(there, token)
        assert seen == []
        assert str((await join(real, token)).svid.id) == "spiffe://example.org/sojourn/node/n"
