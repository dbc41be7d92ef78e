"""How this node is admitted: the first contact, and its SVID replaced before it expires.

On first contact there is no bundle of the server's own to judge it by. A join token names the SHA-256 of the root's
public key; for other proofs the settings name that key, or a trust bundle. The server must show a chain whose last
certificate has that key and that verifies under it, and only then does a byte of the proof leave this process. A man in
the middle sees a handshake fail and nothing else (traps 10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.protocol import H2Protocol

from attestor._proto import node_pb2 as pb
from attestor.errors import BadConversation
from attestor.methods.node.protocol import Prover
from attestor.node_agent.identity import NodeIdentity, csr_of, new_key
from attestor.wire import node as wire
from attestor.wire.answers import answers_from
from ca import tls
from ca.errors import Malformed, Problem
from ca.runtime import log
from ca.spiffe import x509svid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import TrustDomain
from ca.spiffe.x509svid import X509Peer

ALPN = ("h2",)
SERVER = "the attestor server"

_log = log.get(__name__)


class Address:
    """Where the server listens; of several servers, where the one that is spoken to does.

    Several servers over one store are one server to a node: each knows it, and each has authorities of its own that the
    bundle of the trust domain vouches for.
    """

    def __init__(self, host: str, port: int, trust_domain: TrustDomain, others: Sequence[tuple[str, int]] = ()) -> None:
        self.trust_domain = trust_domain
        self._places, self._at, self._since = ((host, port), *others), 0, 0

    @property
    def host(self) -> str:
        """Its name or address."""
        return self._places[self._at][0]

    @property
    def port(self) -> int:
        """Its port."""
        return self._places[self._at][1]

    def turn(self) -> bool:
        """Speak to the next one from now on; True when each was tried since `holds` was last called."""
        self._at = (self._at + 1) % len(self._places)
        self._since = (self._since + 1) % len(self._places)
        return self._since == 0

    def holds(self) -> None:
        """This one answers."""
        self._since = 0

    def known_by(self, identity: NodeIdentity, now: Callable[[], datetime]) -> Channel:
        """A connection that shows `identity` and accepts the server its bundle vouches for."""
        bundles = BundleSet.of(identity.bundle)
        return self._channel(identity.material(), lambda chain: self._server(chain, bundles, now()))

    def pinned(self, root_key_hash: str, now: Callable[[], datetime]) -> Channel:
        """A connection that shows nothing and accepts the server whose root has this key."""
        return self._channel(None, lambda chain: self._server(*_pinned(chain, root_key_hash, self.trust_domain), now()))

    def vouched(self, bundle: Bundle, now: Callable[[], datetime]) -> Channel:
        """A connection that shows nothing and accepts the server that `bundle` vouches for."""
        bundles = BundleSet.of(bundle)
        return self._channel(None, lambda chain: self._server(chain, bundles, now()))

    def _channel(self, material: tls.TlsMaterial | None, verify: tls.ChainVerifier) -> Channel:
        context = tls.client_context(material, verify, on_refusal=_refused, alpn=ALPN)
        return _Link(host=self.host, port=self.port, ssl=context)

    def _server(self, chain: Sequence[bytes], bundles: BundleSet, now: datetime) -> X509Peer:
        peer = x509svid.verify(chain, bundles, now)
        if peer.id != self.trust_domain.member(wire.SERVER_PATH):
            raise Untrusted(f"`{peer.id}` is not the attestor server of `{self.trust_domain}`")
        return peer


class _Link(Channel):
    """A connection that is made once: a call that comes after its end must not open another that nobody closes."""

    _ended = False

    def close(self) -> None:
        """For good."""
        super().close()
        self._ended = True

    async def __connect__(self) -> H2Protocol:
        found = None if self._ended else await super().__connect__()
        if found is None or self._ended:
            super().close()
            raise ConnectionResetError("the connection to the attestor server has ended")
        return found


async def attest(address: Address, link: Channel, method: str, make: Callable[[bytes], Prover]) -> NodeIdentity:
    """Prove this node by `method` over `link`; `make` gives the prover for the key that is to be certified.

    Raises:
        NotProven: the server does not take it.
        Unreachable: nobody answers there, or somebody else than the server that was expected.
    """
    key = new_key()
    with answers_from(SERVER):
        async with link as channel:
            call = channel.request(
                wire.ATTEST, Cardinality.STREAM_STREAM, pb.AttestRequest, pb.AttestResponse, timeout=30
            )
            async with call as stream:
                await stream.send_message(wire.encode_begin(method, csr_of(key)))
                await make(_spki(key)).prove(_Conversation(stream))
                await stream.end()
                answer = await stream.recv_message()
    if answer is None or answer.WhichOneof("step") != "admission":
        raise Malformed("the attestor server neither admitted this node nor said why not")
    return NodeIdentity.of(wire.decode_admission(answer.admission), key, address.trust_domain)


async def renew(channel: Channel, trust_domain: TrustDomain) -> NodeIdentity:
    """A new SVID for a new key, over a connection that shows the old one. Raises Banned, Unavailable."""
    key = new_key()
    with answers_from(SERVER):
        call = channel.request(wire.RENEW, Cardinality.UNARY_UNARY, pb.RenewRequest, pb.Admission, timeout=30)
        async with call as stream:
            await stream.send_message(pb.RenewRequest(csr=csr_of(key)), end=True)
            answer = await stream.recv_message()
    if answer is None:
        raise Malformed("the attestor server answered nothing")
    return NodeIdentity.of(wire.decode_admission(answer), key, trust_domain)


def key_hash(certificate: x509.Certificate) -> str:
    """SHA-256, in hex, of its SubjectPublicKeyInfo."""
    return hashlib.sha256(_spki(certificate)).hexdigest()


def _spki(holder: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class _Conversation:
    """The turns of a proof inside the stream."""

    def __init__(self, stream: Stream[pb.AttestRequest, pb.AttestResponse]) -> None:
        self._stream = stream

    async def send(self, message: bytes) -> None:
        await self._stream.send_message(pb.AttestRequest(answer=message))

    async def receive(self) -> bytes:
        answer = await self._stream.recv_message()
        if answer is None or answer.WhichOneof("step") != "challenge":
            raise BadConversation("the attestor server asked nothing where the method expects a question")
        return answer.challenge


def _pinned(chain: Sequence[bytes], root_key_hash: str, trust_domain: TrustDomain) -> tuple[Sequence[bytes], BundleSet]:
    """The chain without its root, and a bundle of nothing but that root. Raises Untrusted."""
    if len(chain) < 2:
        raise Untrusted("the server showed no root to compare with the one that is expected")
    try:
        root = x509.load_der_x509_certificate(chain[-1])
        shown = key_hash(root)
        bundle = Bundle(trust_domain=trust_domain, x509_authorities=(root,))
    except (ValueError, TypeError, UnsupportedAlgorithm, Malformed) as error:
        raise Untrusted("the server's root can't be read") from error
    if shown != root_key_hash:
        raise Untrusted("the server's root is not the one that is expected here: another server, or one in between")
    return chain[:-1], BundleSet.of(bundle)


def _refused(problem: Problem) -> None:
    _log.warning("the server was refused", reason=str(problem), peer=problem.details.get("peer"))
