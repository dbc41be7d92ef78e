"""The SPIFFE Workload API on a Unix socket: who calls is who the kernel says, and nothing else is asked of it.

Every call looks at the caller anew, and before every message there is one more look: a connection keeps the credentials
of the process that opened it, and a child that inherited it must not go on speaking for a dead parent (traps 9).
A stream sends the whole state at once and again whenever it changed (WL-4, WL-5); when nothing is left of it, it ends
with PermissionDenied (WL-11). The clauses are those of SPIFFE_Workload_API.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from attestor._proto import workload_pb2 as pb
from attestor.errors import NotEntitled
from attestor.node_agent.held import Held
from attestor.node_agent.limits import Place
from attestor.node_agent.peer import peer_of
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.upstream import Issuer
from attestor.wire import workload as wire
from attestor.wire.node import MOST_AUDIENCES
from attestor.wire.workload import JwtEntry, X509Entry, X509Update
from ca.errors import Denied, Malformed, Unauthenticated, Unavailable
from ca.runtime import grpc
from ca.runtime.clock import Clock
from ca.runtime.grpc import GrpcCall, Method
from ca.spiffe import jwtsvid
from ca.spiffe.id import SpiffeId, TrustDomain

Render = Callable[[Held], Message]


class WorkloadApi:
    """The handlers; `methods` is what a gRPC server wants. What isn't there (WIT) is answered with Unimplemented."""

    def __init__(self, renewal: Renewal, issuer: Issuer, clock: Clock) -> None:
        self._renewal = renewal
        self._issuer = issuer
        self._clock = clock

    def methods(self) -> Sequence[Method]:
        """The five methods of the X.509 and JWT profiles, under the standard's own paths."""
        return (
            grpc.server_stream(wire.FETCH_X509_SVID, self._fetch_x509, pb.X509SVIDRequest, pb.X509SVIDResponse),
            grpc.server_stream(
                wire.FETCH_X509_BUNDLES, self._fetch_x509_bundles, pb.X509BundlesRequest, pb.X509BundlesResponse
            ),
            grpc.unary(wire.FETCH_JWT_SVID, self._fetch_jwt, pb.JWTSVIDRequest, pb.JWTSVIDResponse),
            grpc.server_stream(
                wire.FETCH_JWT_BUNDLES, self._fetch_jwt_bundles, pb.JWTBundlesRequest, pb.JWTBundlesResponse
            ),
            grpc.unary(
                wire.VALIDATE_JWT_SVID, self._validate_jwt, pb.ValidateJWTSVIDRequest, pb.ValidateJWTSVIDResponse
            ),
        )

    async def _fetch_x509(self, call: GrpcCall) -> None:
        await self._stream(call, self._x509)

    async def _fetch_x509_bundles(self, call: GrpcCall) -> None:
        await self._stream(call, lambda _: wire.encode_x509_bundles(self._bundles_der()))

    async def _fetch_jwt_bundles(self, call: GrpcCall) -> None:
        await self._stream(call, lambda _: wire.encode_jwt_bundles(self._bundles_jwks()))

    async def _fetch_jwt(self, call: GrpcCall) -> None:
        self._check(call)
        request = wire.decode_jwt_request(await call.recv())
        if len(request.audience) > MOST_AUDIENCES:
            raise Malformed(f"a JWT-SVID must not have more than {MOST_AUDIENCES} audiences")
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            wanted = [request.id] if request.id else [one.id for one in held.identities]
            entries = await self._tokens(held, wanted, request.audience)
            held.check()
            await call.send(wire.encode_jwt(entries))

    async def _validate_jwt(self, call: GrpcCall) -> None:
        self._check(call)
        token, audience = wire.decode_validate(await call.recv())
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            try:
                svid = jwtsvid.verify(token, audience, self._issuer.bundles, self._clock.now())
            except Unauthenticated as error:
                raise Malformed(str(error)) from error  # the token is a bad argument, the caller is who it is
            claims = {**svid.claims, "aud": list(svid.audience)}
            held.check()
            await call.send(wire.encode_validated(wire.Validated(id=svid.id, claims=claims)))

    async def _stream(self, call: GrpcCall, render: Render) -> None:
        """Send what `render` makes of the caller's holdings, at once and whenever it is another."""
        self._check(call)
        await call.recv()
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            sent: Message | None = None
            while True:
                changed = held.change.next()
                held.check()
                if not held.pending:
                    _check_entitled(held)
                    message = render(held)
                    if message != sent:
                        await call.send(message)
                        sent = message
                await changed.wait()

    def _check(self, call: GrpcCall) -> None:
        if isinstance(call.connection.identity, Place):
            call.connection.identity.check()
        name, value = wire.SECURITY_HEADER
        if call.metadata.get(name) != value:
            raise Malformed(f"the header `{name}: {value}` is missing: this is not a client of the Workload API")
        if not self._issuer.initialised:
            raise Unavailable("the node agent has not heard from the attestor server yet")

    def _x509(self, held: Held) -> Message:
        """All X.509-SVIDs, the default one first, each hint once (WL-10)."""
        own = self._bundles_der()
        entries, hints = [], set()
        for identity in held.identities:
            leaf = held.leaves.get(identity.id)
            if leaf is None:
                continue
            hint = "" if identity.hint in hints else identity.hint
            hints.add(hint)
            entries.append(
                X509Entry(
                    id=identity.id, chain=leaf.chain, key=leaf.key, bundle=own[identity.id.trust_domain], hint=hint
                )
            )
        mine = {entry.id.trust_domain for entry in entries}
        federated = {domain: content for domain, content in own.items() if domain not in mine}
        return wire.encode_x509(X509Update(svids=tuple(entries), federated=federated))

    def _bundles_der(self) -> Mapping[TrustDomain, bytes]:
        return {one.trust_domain: one.x509_der() for one in self._issuer.bundles}

    def _bundles_jwks(self) -> Mapping[TrustDomain, bytes]:
        return {one.trust_domain: one.jwt_jwks() for one in self._issuer.bundles}

    async def _tokens(self, held: Held, wanted: Sequence[SpiffeId], audience: tuple[str, ...]) -> tuple[JwtEntry, ...]:
        """A token of each identity that may have one for `audience`. Raises NotEntitled when that is none."""
        entries: list[JwtEntry] = []
        refused: Denied | None = None
        for spiffe_id in wanted:
            try:
                token = await self._renewal.token(held, spiffe_id, audience)
            except Denied as error:
                refused = error
                continue
            identity: Any = held.entitled(spiffe_id)
            entries.append(JwtEntry(id=spiffe_id, token=token, hint=identity.hint if identity else ""))
        if not entries:
            raise refused or NotEntitled("the calling process has no identity")
        return tuple(entries)


def _check_entitled(held: Held) -> None:
    """Something must be left to be sent. Raises NotEntitled, Unavailable."""
    if held.barred or not held.identities:
        raise NotEntitled("the identity of the calling process was withdrawn")
    if not held.leaves:
        raise Unavailable("the certificates of the calling process have expired, and the attestor server signs none")
