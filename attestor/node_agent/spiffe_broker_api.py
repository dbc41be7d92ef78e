"""The SPIFFE Broker API: identities of other processes, for the few who are allowed to ask (SPIFFE_Broker_Endpoint.md).

gRPC over mutual TLS: we show the node's own SVID, the caller one of a trust domain we know, and both are X.509-SVIDs
or there is no connection. Then the caller's SPIFFE ID must stand in the settings with the kind of reference it uses;
whoever is not there learns nothing, not even whether a process exists. Before every message the caller is looked at
again: an expired or revoked certificate gets nothing more on an old connection. No session is resumed.

A stream belongs to one workload. It carries its whole state, at once and on every change, and ends when the workload
does; the errors carry the standard's reason as google.rpc.ErrorInfo.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from attestor._proto import spiffe_broker_pb2 as pb
from attestor._proto import workload_pb2
from attestor.errors import NotForBrokers
from attestor.node_agent import shown
from attestor.node_agent.held import Held, hinted
from attestor.node_agent.references import References, Workload
from attestor.node_agent.reflection import Reflection, Subject
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.upstream import Issuer
from attestor.wire import spiffe_broker as wire
from attestor.wire import workload
from attestor.wire.node import MOST_AUDIENCES
from attestor.wire.spiffe_broker import PodReference, ProcessReference, Reference, TaskReference
from attestor.wire.workload import JwtEntry, JwtRequest
from ca.errors import Denied, Exhausted, Malformed, Problem, Unauthenticated, Unavailable
from ca.runtime import grpc, log
from ca.runtime.clock import Clock
from ca.runtime.grpc import Connection, GrpcCall, Method
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.x509svid import X509Peer, X509Svid, check_not_revoked, verify
from ca.tls import TlsMaterial, peer_of, server_context

_log = log.get(__name__)

KINDS: Mapping[str, type[Reference]] = {"pid": ProcessReference, "kubernetes": PodReference, "task": TaskReference}
"""Kinds of references as settings call them."""

BROKER_API = Subject(
    source=pb.DESCRIPTOR,
    name="brokerapi.proto",
    package="spiffe.broker",
    service=wire.SERVICE,
    header=wire.SECURITY_HEADER,
)
MOST_CONNECTIONS = 256
MOST_OF_STRANGERS = 8
"""Connections of callers that settings do not name: they are only held to hear so."""
LONGEST_REQUEST = 64 * 1024

Allowed = Mapping[SpiffeId, frozenset[type[Reference]]]
Render = Callable[[Held], Message]


class SpiffeBrokerApi:
    """The handlers; `methods` and `options` are what a gRPC server wants, `context` its TLS.

    `svid` is the node's own of the moment, None while it has none.
    """

    def __init__(
        self,
        *,
        renewal: Renewal,
        references: References,
        issuer: Issuer,
        clock: Clock,
        own: TrustDomain,
        allowed: Allowed,
        svid: Callable[[], X509Svid | None],
    ) -> None:
        self._renewal = renewal
        self._references = references
        self._issuer = issuer
        self._svid = svid
        self._clock = clock
        self._own = own
        self._allowed = allowed
        self._seats: Counter[SpiffeId | None] = Counter()
        self._material: tuple[object, object, TlsMaterial] | None = None

    def methods(self) -> Sequence[Method]:
        """The four, both profiles, under the standard's own paths; and reflection, a service of its own."""
        stream = grpc.server_stream
        found = (
            stream(wire.SUBSCRIBE_X509_SVID, self._x509, pb.SubscribeToX509SVIDRequest, pb.SubscribeToX509SVIDResponse),
            stream(
                wire.SUBSCRIBE_X509_BUNDLES,
                self._x509_bundles,
                pb.SubscribeToX509BundlesRequest,
                pb.SubscribeToX509BundlesResponse,
            ),
            grpc.unary(wire.FETCH_JWT_SVID, self._jwt, pb.FetchJWTSVIDRequest, pb.FetchJWTSVIDResponse),
            stream(
                wire.SUBSCRIBE_JWT_BUNDLES,
                self._jwt_bundles,
                pb.SubscribeToJWTBundlesRequest,
                pb.SubscribeToJWTBundlesResponse,
            ),
        )
        return (*found, *Reflection(found, BROKER_API).methods())

    def options(self, options: grpc.Options) -> grpc.Options:
        """The listener's, with who may connect and how errors are told."""
        return replace(
            options, accept=self._accept, release=self._release, details=wire.error_details, limit=LONGEST_REQUEST
        )

    def context(self, on_refusal: Callable[[Problem], None]) -> ssl.SSLContext:
        """Mutual TLS with the node's SVID of the moment."""
        return server_context(self._shown, self._judge, on_refusal=on_refusal, alpn=["h2"])

    async def _x509(self, call: GrpcCall) -> None:
        asked = _asks_for_lists(call)

        def render(held: Held) -> Message:
            found = shown.x509(held, self._bundles(held), self._lists(asked))
            return wire.under_its_name(found, pb.SubscribeToX509SVIDResponse)

        await self._stream(call, render, lists=asked)

    async def _x509_bundles(self, call: GrpcCall) -> None:
        asked = _asks_for_lists(call)

        def render(held: Held) -> Message:
            found = workload.encode_x509_bundles(shown.x509_bundles(self._bundles(held)), self._lists(asked))
            return wire.under_its_name(found, pb.SubscribeToX509BundlesResponse)

        await self._stream(call, render, lists=asked)

    async def _jwt_bundles(self, call: GrpcCall) -> None:
        def render(held: Held) -> Message:
            found = workload.encode_jwt_bundles(shown.jwt_bundles(self._bundles(held)))
            return wire.under_its_name(found, pb.SubscribeToJWTBundlesResponse)

        await self._stream(call, render)

    async def _jwt(self, call: GrpcCall) -> None:
        self._check(call)
        message: pb.FetchJWTSVIDRequest = await call.recv()
        reference = self._reference(call, message.reference)
        request = _tokens_wanted(message)
        async with self._references.workload(reference) as found:
            entries = await self._tokens(found, request)
            self._renewal.look_again(found.held)
            self._check(call)
            await call.send(wire.under_its_name(workload.encode_jwt(entries), pb.FetchJWTSVIDResponse))

    async def _stream(self, call: GrpcCall, render: Render, *, lists: bool = False) -> None:
        self._check(call)
        reference = self._reference(call, (await call.recv()).reference)
        async with self._references.workload(reference) as found, found.wanting_lists(lists):
            sent: Message | None = None
            while True:
                changed = found.held.change.next()
                found.held.check()
                if not found.held.pending:
                    message = render(found.view())
                    if message != sent:
                        self._renewal.look_again(found.held)
                        self._check(call)
                        await call.send(message)
                        sent = message
                await changed.wait()

    async def _tokens(self, found: Workload, request: JwtRequest) -> tuple[JwtEntry, ...]:
        view = found.view()
        wanted = [(one, hint) for one, hint in hinted(view.identities) if request.id in {None, one.id}]
        entries: list[JwtEntry] = []
        for identity, hint in wanted:
            try:
                token = await self._renewal.token(found.held, identity.id, request.audience)
            except Denied as error:
                _log.info("no token for a broker", identity=str(identity.id), error=error)
                continue
            entries.append(JwtEntry(id=identity.id, token=token, hint=hint))
        if not entries:
            raise NotForBrokers("the workload has no such identity, or none that may have a token for this audience")
        return tuple(entries)

    def _bundles(self, held: Held) -> BundleSet:
        return shown.bundles_of(held, self._issuer.bundles, self._own)

    def _lists(self, asked: bool) -> tuple[bytes, ...]:  # noqa: FBT001
        return self._renewal.lists.shown if asked else ()

    def _reference(self, call: GrpcCall, message: pb.WorkloadReference) -> Reference:
        """What is asked for, by a caller that may ask for such. Raises BadReference, NotForBrokers."""
        reference, caller = wire.decode_reference(message), _caller(call.connection)
        if type(reference) not in self._allowed[caller.id]:
            raise NotForBrokers(f"`{caller.id}` may not use references of this kind")
        return reference

    def _check(self, call: GrpcCall) -> None:
        """Who calls is still who it was, and may.

        Raises:
            Unauthenticated: its certificate has expired or was revoked: a new one and a new connection help.
            Malformed: the standard's header is missing.
            Denied: settings do not name it.
            Unavailable: the attestor server has not spoken yet.
        """
        caller = _caller(call.connection)
        self._still_good(caller)
        name, value = wire.SECURITY_HEADER
        if call.metadata.get(name) != value:
            raise Malformed(f"the header `{name}: {value}` is missing: this is not a client of the SPIFFE Broker API")
        if caller.id not in self._allowed:
            raise Denied(f"`{caller.id}` is not among those who may use the SPIFFE Broker API here")
        if not self._issuer.initialised:
            raise Unavailable("the node agent has not heard from the attestor server yet")

    def _still_good(self, caller: X509Peer) -> None:
        if self._clock.now() >= caller.not_after:
            raise Unauthenticated(f"the certificate of `{caller.id}` has expired: connect anew with a fresh one")
        try:
            check_not_revoked(caller.chain, caller.id, self._renewal.lists.revocations)
        except Problem as error:
            raise Unauthenticated(f"the certificate of `{caller.id}` was revoked") from error
        if caller.id.trust_domain == self._own and caller.issuer_key_id in self._issuer.withdrawn:
            raise Unauthenticated(f"the authority that signed the certificate of `{caller.id}` was withdrawn")

    def _judge(self, chain: Sequence[bytes]) -> X509Peer:
        return verify(chain, self._issuer.bundles, self._clock.now(), self._renewal.lists.revocations)

    def _shown(self) -> TlsMaterial:
        svid, bundles = self._svid(), self._issuer.bundles
        if svid is None:
            raise Unavailable("this node has no identity yet")
        if self._material is None or self._material[0] is not svid or self._material[1] is not bundles:
            self._material = (svid, bundles, TlsMaterial.of(svid, bundles))
        return self._material[2]

    def _accept(self, connection: Connection) -> _Seat:
        """A place for one more connection; strangers have few among them all."""
        caller = peer_of(connection.ssl_object)
        if not isinstance(caller, X509Peer):
            raise Unauthenticated("the caller did not prove who it is")
        key = caller.id if caller.id in self._allowed else None
        most = MOST_OF_STRANGERS if key is None else MOST_CONNECTIONS // 2
        if self._seats[key] >= most or self._seats.total() >= MOST_CONNECTIONS + MOST_OF_STRANGERS:
            raise Exhausted(f"`{caller.id}` has all the connections it may have")
        self._seats[key] += 1
        return _Seat(caller, key)

    def _release(self, seat: _Seat) -> None:
        self._seats[seat.key] -= 1


@dataclass(frozen=True, slots=True)
class _Seat:
    """A connection: whose, and among whose it is counted."""

    caller: X509Peer
    key: SpiffeId | None


def _asks_for_lists(call: GrpcCall) -> bool:
    """As on the Workload API: whole states with lists in them are for those who want them (traps 4)."""
    name, value = workload.CRL_HEADER
    return call.metadata.get(name) == value


def _caller(connection: Connection) -> X509Peer:
    assert isinstance(connection.identity, _Seat)
    return connection.identity.caller


def _tokens_wanted(message: pb.FetchJWTSVIDRequest) -> JwtRequest:
    """As on the Workload API. Raises Malformed."""
    if len(message.audience) > MOST_AUDIENCES:
        raise Malformed(f"a JWT-SVID must not have more than {MOST_AUDIENCES} audiences")
    asked = workload_pb2.JWTSVIDRequest(audience=message.audience, spiffe_id=message.spiffe_id)
    return workload.decode_jwt_request(asked)
