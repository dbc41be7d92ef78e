"""The SPIFFE Workload API on a Unix socket: who calls is who the kernel says, and nothing else is asked of it.

Every call looks at the caller anew, and before every message there is one more look: a connection keeps the credentials
of the process that opened it, and a child that inherited it must not go on speaking for a dead parent (traps 9).
A stream sends the whole state at once and again whenever it changed (WL-4, WL-5); when nothing is left of it, it ends
with PermissionDenied (WL-11). The clauses are those of SPIFFE_Workload_API.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestor._proto import workload_pb2 as pb
from attestor.errors import NotEntitled
from attestor.node_agent import shown
from attestor.node_agent.held import Held, hinted
from attestor.node_agent.limits import Place
from attestor.node_agent.peer import peer_of
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.upstream import Issuer
from attestor.wire import wit
from attestor.wire import workload as wire
from attestor.wire.answers import Unsupported
from attestor.wire.node import MOST_AUDIENCES
from attestor.wire.workload import JwtEntry, JwtRequest
from ca.errors import Denied, Malformed, Unauthenticated, Unavailable
from ca.runtime import grpc
from ca.runtime.clock import Clock
from ca.runtime.grpc import GrpcCall, Method
from ca.spiffe import jwtsvid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import TrustDomain

Render = Callable[[Held], Awaitable[Message]]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What sort of stream it is: of what it is to be told, and whether anybody may have it."""

    lists: bool = False
    wits: bool = False
    anybody: bool = False

    @contextmanager
    def counted(self, held: Held) -> Iterator[None]:
        """As long as it is open it is woken for what it waits for."""
        held.list_users += self.lists
        held.wit_users += self.wits
        try:
            yield
        finally:
            held.list_users -= self.lists
            held.wit_users -= self.wits


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
        if self._profiles.wit:
            found += (
                grpc.server_stream(wit.FETCH_WIT_SVID, self._fetch_wit, pb.WITSVIDRequest, pb.WITSVIDResponse),
                grpc.server_stream(
                    wit.FETCH_WIT_BUNDLES, self._fetch_wit_bundles, pb.WITBundlesRequest, pb.WITBundlesResponse
                ),
            )
        return found

    async def _fetch_x509(self, call: GrpcCall) -> None:
        asked = _asks_for_lists(call)

        async def render(held: Held) -> Message:
            _check_leaves(held)
            return shown.x509(held, self._bundles(held), self._lists(asked))

        await self._request(call)
        await self._stream(call, render, _Kind(lists=asked))

    async def _fetch_x509_bundles(self, call: GrpcCall) -> None:
        asked = _asks_for_lists(call)

        async def render(held: Held) -> Message:
            return wire.encode_x509_bundles(shown.x509_bundles(self._bundles(held)), self._lists(asked))

        await self._request(call)
        await self._stream(call, render, _Kind(lists=asked, anybody=self._profiles.bundles_for_anybody))

    async def _fetch_jwt_bundles(self, call: GrpcCall) -> None:
        async def render(held: Held) -> Message:
            return wire.encode_jwt_bundles(shown.jwt_bundles(self._bundles(held)))

        await self._request(call)
        await self._stream(call, render, _Kind(anybody=self._profiles.bundles_for_anybody))

    async def _fetch_wit(self, call: GrpcCall) -> None:
        wanted = wit.decode_request(await self._request(call))

        async def render(held: Held) -> Message:
            return wit.encode(await self._renewal.tokens.wits(held, wanted))

        try:
            await self._stream(call, render, _Kind(wits=True))
        except Unsupported as error:  # by the attestor server: to the caller it is all the same (WL-1)
            raise GRPCError(Status.UNIMPLEMENTED, "no WIT-SVIDs are signed here") from error

    async def _fetch_wit_bundles(self, call: GrpcCall) -> None:
        async def render(held: Held) -> Message:
            return wit.encode_bundles(shown.wit_bundles(self._bundles(held)))

        await self._request(call)
        await self._stream(call, render, _Kind(anybody=self._profiles.bundles_for_anybody))

    async def _fetch_jwt(self, call: GrpcCall) -> None:
        request = wire.decode_jwt_request(await self._request(call))
        if len(request.audience) > MOST_AUDIENCES:
            raise Malformed(f"a JWT-SVID must not have more than {MOST_AUDIENCES} audiences")
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            entries = await self._tokens(held, request)
            self._renewal.look_again(held)
            await call.send(wire.encode_jwt(entries))

    async def _validate_jwt(self, call: GrpcCall) -> None:
        token, audience = wire.decode_validate(await self._request(call))
        async with self._renewal.admitted(peer_of(call.socket)) as held:
            try:
                svid = jwtsvid.verify(token, audience, self._bundles(held), self._clock.now())
            except Unauthenticated as error:
                raise Malformed(str(error)) from error  # the token is a bad argument, the caller is who it is
            allowed = None if svid.id.trust_domain == self._own else self._profiles.foreign_claims
            claims = {**shown.claims(svid.claims, allowed), "aud": list(svid.audience)}
            held.check()
            await call.send(wire.encode_validated(wire.Validated(id=svid.id, claims=claims)))

    async def _stream(self, call: GrpcCall, render: Render, kind: _Kind) -> None:
        """Send what `render` makes of the caller's holdings, at once and whenever it is another."""
        async with self._renewal.admitted(peer_of(call.socket), anybody=kind.anybody) as held:
            with kind.counted(held):
                sent: Message | None = None
                while True:
                    changed = held.change.next()
                    held.check()
                    if not held.pending:
                        if not kind.anybody:
                            _check_entitled(held)
                        message = await render(held)
                        if message != sent:
                            self._renewal.look_again(held)
                            await call.send(message)
                            sent = message
                    await changed.wait()

    async def _request(self, call: GrpcCall) -> Any:
        """The message of a call that may be answered. Raises Overloaded, Malformed, Unavailable."""
        if isinstance(call.connection.identity, Place):
            call.connection.identity.check()
        name, value = wire.SECURITY_HEADER
        if call.metadata.get(name) != value:
            raise Malformed(f"the header `{name}: {value}` is missing: this is not a client of the Workload API")
        if not self._issuer.initialised:
            raise Unavailable("the node agent has not heard from the attestor server yet")
        return await call.recv()

    def _bundles(self, held: Held) -> BundleSet:
        return shown.bundles_of(held, self._issuer.bundles, self._own)

    def _lists(self, asked: bool) -> tuple[bytes, ...]:  # noqa: FBT001
        return self._renewal.lists.shown if asked else ()

    async def _tokens(self, held: Held, request: JwtRequest) -> tuple[JwtEntry, ...]:
        """A token of each identity asked for that may have one. Raises NotEntitled when that is none."""
        entries: list[JwtEntry] = []
        refused: Denied | None = None
        wanted = [(one, hint) for one, hint in hinted(held.identities) if request.id in {None, one.id}]
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


def _asks_for_lists(call: GrpcCall) -> bool:
    name, value = wire.CRL_HEADER
    return call.metadata.get(name) == value


def _check_entitled(held: Held) -> None:
    """Something must be left to be sent. Raises NotEntitled."""
    if held.barred or not held.identities:
        raise NotEntitled("the identity of the calling process was withdrawn")


def _check_leaves(held: Held) -> None:
    """Raises Unavailable: as long as nothing is signed, there is no whole state to send (WL-10)."""
    if not held.leaves:
        raise Unavailable("the certificates of the calling process have expired, and the attestor server signs none")
