"""A node agent's end of the wire, laid bare: what a test wants to say to a running attestor server."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from h2.exceptions import StreamClosedError

from attestor._proto import node_pb2 as pb
from attestor._proto import task_pb2
from attestor.methods.node.join_token import JoinToken
from attestor.server.settings import ServerSettings
from attestor.wire import node as wire
from attestor.wire import task
from ca.errors import Unauthenticated
from ca.runtime import grpc
from ca.runtime.settings import loads
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.x509svid import X509Svid
from ca.tls import TlsMaterial, client_context
from fakes.attestor_parts import csr

STREAM = Cardinality.STREAM_STREAM
KEY = ec.generate_private_key(ec.SECP256R1())
KEY_DER = KEY.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def server_settings(folder: Path, **changes: Any) -> ServerSettings:
    """A whole server in `folder`, on free ports, with the rules of `rules.yaml`."""
    (folder / "rules.yaml").touch()
    if not (folder / "rules.yaml").read_text():
        (folder / "rules.yaml").write_text("rules: []\n")
    text = f"""\
trust_domain: example.org
listen: {{host: 127.0.0.1, port: 0}}
admin_socket: {folder}/admin.sock
database: "sqlite:{folder}/server.db"
rules: ["{folder}/rules.yaml"]
beat: 200ms
parts:
  - name: broker
    nodes: [node:name:n]
    when: [unix:self:true]
"""
    return loads(text, "server.yaml", ServerSettings).model_copy(update=changes)


class Hearing:
    """Reads what the server says on one stream, and remembers the lists it has carried."""

    def __init__(self) -> None:
        self.lists: tuple[bytes, ...] = ()

    def __call__(self, message: pb.FollowResponse) -> wire.Update | wire.Beat:
        """One message."""
        step = wire.decode_followed(message, self.lists)
        if isinstance(step, wire.Update):
            self.lists = step.revocation_lists
        return step


def pinned(key_hash: str) -> Callable[[Sequence[bytes]], str]:
    """What a node that joins does: the chain must end in a root with exactly that key."""

    def verify(chain: Sequence[bytes]) -> str:
        root = x509.load_der_x509_certificate(chain[-1])
        spki = root.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if hashlib.sha256(spki).hexdigest() != key_hash:
            raise Unauthenticated("the server's root is not the one the join token names")
        for child, parent in itertools.pairwise(chain):
            issuer = x509.load_der_x509_certificate(parent)
            x509.load_der_x509_certificate(child).verify_directly_issued_by(issuer)
        return "server"

    return verify


@asynccontextmanager
async def connected(
    address: tuple[str, int], material: TlsMaterial | None, verify: Callable[[Sequence[bytes]], object]
) -> AsyncIterator[Channel]:
    """A channel; with `material` it shows a certificate."""
    context = client_context(material, verify, on_refusal=lambda _: None, alpn=["h2"])
    channel = grpc.connect_tls(*address, context)
    try:
        yield channel
    finally:
        channel.close()


async def attest(address: tuple[str, int], token: JoinToken, key_hash: str | None = None) -> wire.Admission:
    """Join, as `token` allows."""
    async with connected(address, None, pinned(key_hash or token.root_key_hash)) as channel:
        request = channel.request(wire.ATTEST, STREAM, pb.AttestRequest, pb.AttestResponse)
        async with request as stream:
            await stream.send_message(wire.encode_begin("join_token", csr(KEY)))
            proof = f"{token.id}.{token.secret.reveal()}".encode()
            await stream.send_message(pb.AttestRequest(answer=proof), end=True)
            answer = await stream.recv_message()
            await stream.recv_trailing_metadata()
    assert answer is not None
    return wire.decode_admission(answer.admission)


def material(chain: bytes, bundle: bytes, domain: Any, key_der: bytes = KEY_DER) -> TlsMaterial:
    """What a client with this chain shows."""
    return TlsMaterial.of(X509Svid.parse(chain, key_der), BundleSet.of(Bundle.from_jwks(domain, bundle)))


@asynccontextmanager
async def as_node(address: tuple[str, int], admitted: wire.Admission) -> AsyncIterator[Channel]:
    """A channel that shows the node's certificate."""
    shown = material(admitted.chain, admitted.bundle.document, admitted.bundle.trust_domain)
    async with connected(address, shown, lambda chain: "server") as channel:
        yield channel


async def ask(channel: Channel, path: str, request: Message, reply: type[Message]) -> Any:
    """One unary call."""
    call = channel.request(path, Cardinality.UNARY_UNARY, type(request), reply)
    async with call as stream:
        await stream.send_message(request, end=True)
        return await stream.recv_message()


@asynccontextmanager
async def following(channel: Channel) -> AsyncIterator[Stream[Any, Any]]:
    """The held stream."""
    async with channel.request(wire.FOLLOW, STREAM, pb.FollowRequest, pb.FollowResponse) as stream:
        await stream.send_request()
        yield stream
        with suppress(StreamClosedError):  # the server may have ended it
            await stream.cancel()


@asynccontextmanager
async def watching(channel: Channel) -> AsyncIterator[Stream[Any, Any]]:
    """The broker's stream."""
    shape = Cardinality.UNARY_STREAM
    async with channel.request(task.WATCH, shape, task_pb2.WatchRequest, task_pb2.WatchResponse) as stream:
        yield stream
        with suppress(StreamClosedError):  # the server may have ended it
            await stream.cancel()


async def until(stream: Stream[Any, Any], decode: Callable[[Any], Any], wanted: Callable[[Any], bool]) -> Any:
    """The first message that is `wanted`; beats and what came before are passed over."""
    while True:
        message = await stream.recv_message()
        assert message is not None, "the stream ended before"
        step = decode(message)
        if wanted(step):
            return step
