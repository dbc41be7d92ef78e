"""The SPIFFE Workload API on a Unix socket: who calls is who the kernel says, and nothing else is asked of it.

Every call looks at the caller anew, and before every message there is one more look: a connection keeps the credentials
of the process that opened it, and a child that inherited it must not go on speaking for a dead parent (traps 9).
A stream sends the whole state at once and again whenever it changed (WL-4, WL-5); when nothing is left of it, it ends
with PermissionDenied (WL-11). The clauses are those of SPIFFE_Workload_API.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from google.protobuf.message import Message

from attestor._proto import workload_pb2 as pb
from attestor.errors import NotEntitled
from attestor.node_agent import shown
from attestor.node_agent.held import Held
from attestor.node_agent.limits import Place
from attestor.node_agent.peer import peer_of
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.upstream import Issuer
from attestor.wire import workload as wire
from attestor.wire.node import MOST_AUDIENCES
from attestor.wire.workload import JwtEntry, JwtRequest
from ca.errors import Denied, Malformed, Unauthenticated, Unavailable
from ca.runtime import grpc
from ca.runtime.clock import Clock
from ca.runtime.grpc import GrpcCall, Method
from ca.spiffe import jwtsvid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import TrustDomain

Render = Callable[[Held], Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """What of the standard is offered; what isn't is answered with Unimplemented (WL-1)."""

    x509: bool = True
    jwt: bool = True
    wit: bool = True
    bundles_for_anybody: bool = False
    """Whether a process without identity may follow the bundles of the own trust domain."""
    foreign_claims: frozenset[str] = frozenset()
    """Claims beside the registered ones that are told on of a validated token of another trust domain."""


class WorkloadApi:
    """The handlers; `methods` is what a gRPC server wants."""

    def __init__(
        self, renewal: Renewal, issuer: Issuer, clock: Clock, own: TrustDomain, profiles: Profiles | None = None
    ) -> None:
        self._renewal = renewal
        self._issuer = issuer
        self._clock = clock
        self._own = own
        self._profiles = profiles or Profiles()

    def methods(self) -> Sequence[Method]:
        """The methods of the profiles that are on, under the standard's own paths."""
        found: list[Method] = []
        if self._profiles.x509:
            found += (
                grpc.server_stream(wire.FETCH_X509_SVID, self._fetch_x509, pb.X509SVIDRequest, pb.X509SVIDResponse),
                grpc.server_stream(
                    wire.FETCH_X509_BUNDLES, self._fetch_x509_bundles, pb.X509BundlesRequest, pb.X509BundlesResponse
                ),
            )
        if self._profiles.jwt:
            found += (
                grpc.unary(wire.FETCH_JWT_SVID, self._fetch_jwt, pb.JWTSVIDRequest, pb.JWTSVIDResponse),
                grpc.server_stream(
                    wire.FETCH_JWT_BUNDLES, self._fetch_jwt_bundles, pb.JWTBundlesRequest, pb.JWTBundlesResponse
                ),
                grpc.unary(
                    wire.VALIDATE_JWT_SVID, self._validate_jwt, pb.ValidateJWTSVIDRequest, pb.ValidateJWTSVIDResponse
                ),
            )
        return found

    async def _fetch_x509(self, call: GrpcCall) -> None:
        asked = _asks_for_lists(call)
        await self._stream(call, lambda held: shown.x509(held, self._bundles(held), self._lists(asked)), lists=asked)

    async def _fetch_x509_bundles(self, call: GrpcCall) -> None:
        asked = _asks_for_lists(call)

        def render(held: Held) -> Message:
            return wire.encode_x509_bundles(shown.x509_bundles(self._bundles(held)), self._lists(asked))

        await self._stream(call, render, lists=asked, anybody=self._profiles.bundles_for_anybody)

    async def _fetch_jwt_bundles(self, call: GrpcCall) -> None:
        def render(held: Held) -> Message:
            return wire.encode_jwt_bundles(shown.jwt_bundles(self._bundles(held)))

        await self._stream(call, render, anybody=self._profiles.bundles_for_anybody)

    async def _fetch_jwt(self, call: GrpcCall) -> None:
        self._check(call)
        request = wire.decode_jwt_request(await call.recv())
        if len(request.audience) > MOST_AUDIENCES:
            raise Malformed(f"a JWT-SVID must not have more than {MOST_AUDIENCES} audiences")
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            entries = await self._tokens(held, request)
            self._renewal.look_again(held)
            await call.send(wire.encode_jwt(entries))

    async def _validate_jwt(self, call: GrpcCall) -> None:
        self._check(call)
        token, audience = wire.decode_validate(await call.recv())
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            try:
                svid = jwtsvid.verify(token, audience, self._bundles(held), self._clock.now())
            except Unauthenticated as error:
                raise Malformed(str(error)) from error  # the token is a bad argument, the caller is who it is
            allowed = None if svid.id.trust_domain == self._own else self._profiles.foreign_claims
            claims = {**shown.claims(svid.claims, allowed), "aud": list(svid.audience)}
            held.check()
            await call.send(wire.encode_validated(wire.Validated(id=svid.id, claims=claims)))

    async def _stream(self, call: GrpcCall, render: Render, *, lists: bool = False, anybody: bool = False) -> None:
        """Send what `render` makes of the caller's holdings, at once and whenever it is another."""
        self._check(call)
        await call.recv()
        async with self._renewal.admitted(peer_of(call.socket), anybody=anybody) as held:
            with _counted(held, lists=lists):
                sent: Message | None = None
                while True:
                    changed = held.change.next()
                    held.check()
                    if not held.pending:
                        if not anybody:
                            _check_entitled(held)
                        message = render(held)
                        if message != sent:
                            self._renewal.look_again(held)
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

    def _bundles(self, held: Held) -> BundleSet:
        return shown.bundles_of(held, self._issuer.bundles, self._own)

    def _lists(self, asked: bool) -> tuple[bytes, ...]:  # noqa: FBT001
        return self._renewal.lists.shown if asked else ()

    async def _tokens(self, held: Held, request: JwtRequest) -> tuple[JwtEntry, ...]:
        """A token of each identity asked for that may have one. Raises NotEntitled when that is none."""
        entries: list[JwtEntry] = []
        refused: Denied | None = None
        wanted = [(one, hint) for one, hint in shown.hinted(held.identities) if request.id in {None, one.id}]
        for identity, hint in wanted:
            try:
                token = await self._renewal.token(held, identity.id, request.audience)
            except Denied as error:
                refused = error
                continue
            entries.append(JwtEntry(id=identity.id, token=token, hint=hint))
        if not entries:
            raise refused or NotEntitled("the calling process has no such identity")
        return tuple(entries)


@contextmanager
def _counted(held: Held, *, lists: bool) -> Iterator[None]:
    """Those that want lists are told of new ones."""
    held.list_users += lists
    try:
        yield
    finally:
        held.list_users -= lists


def _asks_for_lists(call: GrpcCall) -> bool:
    name, value = wire.CRL_HEADER
    return call.metadata.get(name) == value


def _check_entitled(held: Held) -> None:
    """Something must be left to be sent. Raises NotEntitled, Unavailable."""
    if held.barred or not held.identities:
        raise NotEntitled("the identity of the calling process was withdrawn")
    if not held.leaves:
        raise Unavailable("the certificates of the calling process have expired, and the attestor server signs none")
