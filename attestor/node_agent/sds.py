"""Envoy's secret discovery service on the socket of the Workload API: the same callers, the same laws, another wire.

What Envoy may ask for by name:

    default             the certificate of its first identity       (the three names are settings)
    spiffe://td/path    the certificate of that identity
    ROOTCA              whom to trust of its own trust domain
    spiffe://td         whom to trust of that domain: its own, or one its identity federates with
    ALL                 whom to trust of all of these

A stream gets the whole state of what it named, at once and whenever it changed. A response it refuses (NACK) is written
to the log with Envoy's words and not sent again until something is another; a request that answers an older response
is passed over. Names that are nobody's are left out while others can be served; when there are no others the stream
ends with PermissionDenied: Envoy writes that to its log, keeps the secrets it has and asks again, later each time. It
opens a stream for each secret, so one wrong name harms no other.

An Envoy looks at revocation lists only where they stand among the authorities, and then wants one of every authority,
the root too, or refuses everybody (traps 15): they are sent when a setting says so.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from attestor._proto import secrets_pb2 as pb
from attestor.errors import NotEntitled
from attestor.node_agent import shown
from attestor.node_agent.change import Change
from attestor.node_agent.held import Held
from attestor.node_agent.limits import Place
from attestor.node_agent.peer import peer_of
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.upstream import Issuer
from attestor.wire import sds as wire
from attestor.wire.sds import Response, SecretRequest, Trust
from ca.errors import Malformed, Unavailable
from ca.runtime import grpc, log
from ca.runtime.grpc import GrpcCall, Method
from ca.runtime.metrics import Metrics
from ca.spiffe.id import SpiffeId, TrustDomain

_log = log.get(__name__)

Found = dict[str, pb.Secret]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How secrets are called, and how peers are to be judged."""

    certificate: str = "default"
    own_bundle: str = "ROOTCA"
    all_bundles: str = "ALL"
    spiffe_validator: bool = True
    revocation_lists: bool = False


class SecretDiscovery:
    """The handlers; `methods` is what a gRPC server wants."""

    def __init__(
        self, renewal: Renewal, issuer: Issuer, own: TrustDomain, naming: Naming, metrics: Metrics | None = None
    ) -> None:
        self._renewal = renewal
        self._issuer = issuer
        self._own = own
        self._naming = naming
        self._metrics = metrics or Metrics()
        self._versions = itertools.count(1)

    def methods(self) -> Sequence[Method]:
        """Two of Envoy's three; DeltaSecrets is answered with Unimplemented."""
        request, response = pb.DiscoveryRequest, pb.DiscoveryResponse
        return (
            grpc.bidi(wire.STREAM_SECRETS, self._stream, request, response, limit=wire.LONGEST_REQUEST),
            grpc.unary(wire.FETCH_SECRETS, self._fetch, request, response),
        )

    async def _fetch(self, call: GrpcCall) -> None:
        self._check(call)
        request = wire.decode_request(await call.recv())
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            subscription = _Subscription.of(request)
            found = self._look(held, subscription)
            self._renewal.look_again(held)
            await call.send(wire.encode_response(subscription.respond(found, next(self._versions))))

    async def _stream(self, call: GrpcCall) -> None:
        self._check(call)
        first = await call.recv()
        if first is None:
            return
        subscription = _Subscription.of(wire.decode_request(first))
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            held.list_users += self._naming.revocation_lists
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._relay(held, subscription))
                    group.create_task(self._speak(call, held, subscription))
                    group.create_task(self._hear(call, held, subscription))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from errors.exceptions[0].__cause__
            finally:
                held.list_users -= self._naming.revocation_lists

    async def _hear(self, call: GrpcCall, held: Held, subscription: _Subscription) -> None:
        """Until the caller has said its last; it may go on listening."""
        async for message in call:
            request = wire.decode_request(message)
            if subscription.hear(request):
                subscription.wake.announce()
            if request.refused is not None and request.nonce == subscription.nonce:
                self._metrics.count("sojourn_sds_refused_total")
                names = ", ".join(subscription.names) or "everything"
                _log.warning("Envoy refused a secret", instance=held.instance, secrets=names, reason=request.refused)

    @staticmethod
    async def _relay(held: Held, subscription: _Subscription) -> None:
        """What concerns the process concerns this stream."""
        while True:
            changed = held.change.next()
            subscription.wake.announce()
            await changed.wait()

    async def _speak(self, call: GrpcCall, held: Held, subscription: _Subscription) -> None:
        while True:
            woken = subscription.wake.next()
            held.check()
            if not held.pending:
                found = self._look(held, subscription)
                if subscription.is_due(found):
                    self._renewal.look_again(held)
                    await call.send(wire.encode_response(subscription.respond(found, next(self._versions))))
            await woken.wait()

    def _check(self, call: GrpcCall) -> None:
        if isinstance(call.connection.identity, Place):
            call.connection.identity.check()
        if not self._issuer.initialised:
            raise Unavailable("the node agent has not heard from the attestor server yet")

    def _look(self, held: Held, subscription: _Subscription) -> Found:
        """The secrets it asked for. Raises NotEntitled when there is none of them, Unavailable when all expired."""
        if held.barred or not held.identities:
            raise NotEntitled("the identity of the calling process was withdrawn")
        if not held.leaves:
            raise Unavailable("the certificates of the calling process have expired, and none is signed")
        plain = not self._naming.spiffe_validator if subscription.plain is None else subscription.plain
        wanted = subscription.names or (() if subscription.named else tuple(self._everything(held)))
        found: Found = {}
        for name in wanted:
            secret = self._certificate(held, name) or self._validation(held, name, plain=plain)
            if secret is not None:
                found[name] = secret
        missing = [name for name in wanted if name not in found]
        if missing and not found:
            raise NotEntitled(f"the calling process may ask for no secret called `{'`, `'.join(missing)}`"[:500])
        if missing and subscription.missed(missing):
            _log.warning("Envoy asks for secrets that are not there", instance=held.instance, secrets=missing)
        return found

    def _everything(self, held: Held) -> Iterator[str]:
        yield from (str(one.id) for one in held.identities if one.id in held.leaves)
        yield from (str(domain.id) for domain in self._domains(held))

    def _certificate(self, held: Held, name: str) -> pb.Secret | None:
        """Of the identity it names; the default one is the first, and never another in its place."""
        first = held.identities[0]
        named = (one for one in held.identities if str(one.id) == name)
        identity = first if name == self._naming.certificate else next(named, None)
        leaf = held.leaves.get(identity.id) if identity is not None else None
        return None if leaf is None else wire.certificate(name, leaf.chain, leaf.key)

    def _validation(self, held: Held, name: str, *, plain: bool) -> pb.Secret | None:
        domains = self._domains(held)
        if name == self._naming.all_bundles:
            chosen = domains
        else:
            domain = self._own if name == self._naming.own_bundle else _domain(name)
            chosen = {one: trust for one, trust in domains.items() if one == domain}
        if not chosen:
            return None
        if not plain:
            return wire.spiffe_validation(name, chosen)
        if len(chosen) > 1:
            raise Malformed(f"`{name}` holds several trust domains: only Envoy's SPIFFE validator keeps them apart")
        return wire.plain_validation(name, next(iter(chosen.values())))

    def _domains(self, held: Held) -> Mapping[TrustDomain, Trust]:
        """The bundles of its own domain and of those its identities federate with."""
        bundles = shown.bundles_of(held, self._issuer.bundles, self._own)
        return {
            domain: Trust(authorities=der, revocation_lists=self._lists(domain))
            for domain, der in shown.x509_bundles(bundles).items()
        }

    def _lists(self, domain: TrustDomain) -> tuple[bytes, ...]:
        """Of our own domain; what foreign ones revoke nobody tells us. Raises Unavailable while there is none yet."""
        if domain != self._own or not self._naming.revocation_lists:
            return ()
        if not self._renewal.lists.shown:
            raise Unavailable("the attestor server has sent no revocation list yet, and settings demand one")
        return self._renewal.lists.shown


@dataclass(slots=True, kw_only=True)
class _Subscription:
    """What one stream has asked for, was sent and has answered."""

    names: tuple[str, ...]
    plain: bool | None
    named: bool
    nonce: str = ""
    sent: Found | None = field(default=None, repr=False)
    wake: Change = field(default_factory=Change)
    told_missing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, first: SecretRequest) -> _Subscription:
        """A first request without names is for everything; a later one for nothing."""
        return cls(names=first.names, plain=first.plain, named=bool(first.names))

    def hear(self, request: SecretRequest) -> bool:
        """Take an answer or another wish; whether there is something to say. One of an older response is stale."""
        if self.nonce and request.nonce != self.nonce:
            return False
        if request.names == self.names:
            return False
        self.names, self.named, self.sent = request.names, True, None
        return True

    def is_due(self, found: Found) -> bool:
        """Whether `found` was not sent yet. An Envoy that wants nothing any more is sent nothing."""
        return found != self.sent and bool(found)

    def respond(self, found: Found, version: int) -> Response:
        """Send `found`."""
        self.sent, self.nonce = found, secrets.token_hex(8)
        return Response(list(found.values()), str(version), self.nonce)

    def missed(self, names: Sequence[str]) -> bool:
        """Whether these were not known to be missing before."""
        before, self.told_missing = self.told_missing, frozenset(names)
        return self.told_missing != before


def _domain(name: str) -> TrustDomain | None:
    """The trust domain that `name` is the ID of."""
    try:
        found = SpiffeId.parse(name)
    except Malformed:
        return None
    return found.trust_domain if not found.path else None
