"""Fetch and watch: the SPIFFE Workload API, ours or another issuer's.

One call is one attempt here; whoever wants to hold on uses the sources of `attestor.client.source`. Clauses WL-* are
those of SPIFFE_Workload_API.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from grpclib.client import Channel
from grpclib.const import Cardinality

from attestor._proto import workload_pb2 as pb
from attestor.client.errors import NoIdentity
from attestor.wire import wit
from attestor.wire import workload as wire
from attestor.wire.answers import answers_from
from attestor.wire.wit import WitEntry
from ca.errors import Denied, Malformed
from ca.spiffe import endpoint, jwtsvid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.endpoint import Endpoint, UnixEndpoint
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.jwtsvid import JwtSvid
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.witsvid import WitSvid
from ca.spiffe.x509svid import X509Svid

T = TypeVar("T")

SOCKET_VARIABLE = "SPIFFE_ENDPOINT_SOCKET"


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Context:
    """All X.509-SVIDs of this process, the default one first, and the bundles to judge others by."""

    svids: tuple[X509Svid, ...]
    bundles: BundleSet
    revocations: RevocationLists = field(default_factory=RevocationLists)


def endpoint_of(address: Endpoint | str | None, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """The endpoint meant by `address`, or by the environment when nothing is said.

    Raises:
        Malformed: nothing is said anywhere, or what is said is no endpoint.
    """
    if address is None:
        address = environment.get(SOCKET_VARIABLE) or None
    if address is None:
        raise Malformed(f"no Workload API is known: set `{SOCKET_VARIABLE}`, as in `unix:///run/sojourn/workload.sock`")
    return endpoint.parse(address) if isinstance(address, str) else address


class WorkloadApiClient:
    """One connection to a Workload API, opened with the first call; an async context manager.

    Every call raises `NoIdentity` when nothing says who this process is, `Unsupported` when asking again can't help,
    `Unreachable` or `Unavailable` when it can, and `Malformed` when the answer breaks the standard.
    """

    def __init__(self, address: Endpoint | str | None = None) -> None:
        self.endpoint = endpoint_of(address)
        self._channel = _channel(self.endpoint)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; idempotent."""
        self._channel.close()

    async def fetch_x509(self) -> X509Context:
        """Everything X.509, once."""
        return await _first(self.watch_x509())

    async def watch_x509(self) -> AsyncGenerator[X509Context, None]:
        """Everything X.509, again at each change, until the other end ends it. Raises as the class says.

        An issuer of ours is asked for revocation lists as well; another does not know the question.
        """
        call = self._stream(wire.FETCH_X509_SVID, pb.X509SVIDRequest(), pb.X509SVIDResponse, wire.CRL_HEADER)
        lists = RevocationLists()
        async with aclosing(call) as messages:
            async for message in messages:
                update = wire.decode_x509(message)
                if {one.der for one in lists} != set(update.crl):
                    lists = RevocationLists.of(update.crl)
                yield _x509_context(update, lists)

    async def fetch_x509_bundles(self) -> BundleSet:
        """The X.509 bundles alone, once."""
        return await _first(self.watch_x509_bundles())

    async def watch_x509_bundles(self) -> AsyncGenerator[BundleSet, None]:
        """The X.509 bundles alone, again at each change."""
        call = self._stream(wire.FETCH_X509_BUNDLES, pb.X509BundlesRequest(), pb.X509BundlesResponse)
        async with aclosing(call) as messages:
            async for message in messages:
                yield _x509_bundles(wire.decode_x509_bundles(message))

    async def fetch_jwt(self, audience: Sequence[str], spiffe_id: SpiffeId | None = None) -> tuple[JwtSvid, ...]:
        """A token for `audience` of each of our identities, or only of `spiffe_id`."""
        request = wire.encode_jwt_request(wire.JwtRequest(audience=tuple(audience), id=spiffe_id))
        message = await self._unary(wire.FETCH_JWT_SVID, request, pb.JWTSVIDResponse)
        return tuple(_token(entry) for entry in wire.decode_jwt(message))

    async def fetch_jwt_bundles(self) -> BundleSet:
        """The JWT bundles, once."""
        return await _first(self.watch_jwt_bundles())

    async def watch_jwt_bundles(self) -> AsyncGenerator[BundleSet, None]:
        """The JWT bundles, again at each change."""
        call = self._stream(wire.FETCH_JWT_BUNDLES, pb.JWTBundlesRequest(), pb.JWTBundlesResponse)
        async with aclosing(call) as messages:
            async for message in messages:
                bundles = wire.decode_jwt_bundles(message)
                yield BundleSet.of(*(Bundle.from_jwks(domain, jwks) for domain, jwks in bundles.items()))

    async def fetch_wit(self, spiffe_id: SpiffeId | None = None) -> tuple[WitSvid, ...]:
        """A WIT-SVID of each of our identities with its key, or only of `spiffe_id`."""
        return await _first(self.watch_wit(spiffe_id))

    async def watch_wit(self, spiffe_id: SpiffeId | None = None) -> AsyncGenerator[tuple[WitSvid, ...], None]:
        """The same, again at each change."""
        call = self._stream(wit.FETCH_WIT_SVID, wit.encode_request(spiffe_id), pb.WITSVIDResponse)
        async with aclosing(call) as messages:
            async for message in messages:
                yield tuple(_wit(entry) for entry in wit.decode(message))

    async def fetch_wit_bundles(self) -> BundleSet:
        """The WIT bundles, once."""
        return await _first(self.watch_wit_bundles())

    async def watch_wit_bundles(self) -> AsyncGenerator[BundleSet, None]:
        """The WIT bundles, again at each change."""
        call = self._stream(wit.FETCH_WIT_BUNDLES, pb.WITBundlesRequest(), pb.WITBundlesResponse)
        async with aclosing(call) as messages:
            async for message in messages:
                bundles = wit.decode_bundles(message)
                yield BundleSet.of(*(Bundle.from_jwks(domain, jwks) for domain, jwks in bundles.items()))

    async def validate_jwt(self, token: str, audience: str) -> wire.Validated:
        """Have the Workload API judge `token`."""
        request = wire.encode_validate(token, audience)
        return wire.decode_validated(await self._unary(wire.VALIDATE_JWT_SVID, request, pb.ValidateJWTSVIDResponse))

    async def _unary(self, path: str, request: Any, answer: type[T]) -> T:
        with _answers(self.endpoint):
            call = self._channel.request(
                path, Cardinality.UNARY_UNARY, type(request), answer, metadata=[wire.SECURITY_HEADER]
            )
            async with call as stream:
                await stream.send_message(request, end=True)
                message = await stream.recv_message()
        if message is None:
            raise Malformed("the Workload API answered nothing")
        return message

    async def _stream(
        self, path: str, request: Any, answer: type[T], *headers: tuple[str, str]
    ) -> AsyncGenerator[T, None]:
        with _answers(self.endpoint):
            call = self._channel.request(
                path, Cardinality.UNARY_STREAM, type(request), answer, metadata=[wire.SECURITY_HEADER, *headers]
            )
            async with call as stream:
                await stream.send_message(request, end=True)
                async for message in stream:
                    yield message


def _channel(where: Endpoint) -> Channel:
    if isinstance(where, UnixEndpoint):
        return Channel(path=where.path)
    return Channel(host=where.host, port=where.port)


@contextmanager
def _answers(where: Endpoint) -> Iterator[None]:
    """Say what a call raised in the words of the Workload API: its PermissionDenied means that we have no identity."""
    try:
        with answers_from(f"the Workload API at `{where}`"):
            yield
    except Denied as error:
        raise NoIdentity(str(error)) from error


async def _first(updates: AsyncGenerator[T, None]) -> T:
    async with aclosing(updates) as stream:
        async for update in stream:
            return update
    raise Malformed("the Workload API ended the stream without a word")


def _x509_context(update: wire.X509Update, lists: RevocationLists) -> X509Context:
    svids = tuple(X509Svid.parse(one.chain, one.key, one.hint) for one in update.svids)
    for svid, entry in zip(svids, update.svids, strict=True):
        if svid.id != entry.id:
            raise Malformed(f"the Workload API calls the X.509-SVID of `{svid.id}` another name")
    own = {entry.id.trust_domain: entry.bundle for entry in update.svids}
    return X509Context(svids=svids, bundles=_x509_bundles({**update.federated, **own}), revocations=lists)


def _x509_bundles(bundles: Mapping[TrustDomain, bytes]) -> BundleSet:
    return BundleSet.of(*(Bundle.from_der(domain, content) for domain, content in bundles.items()))


def _wit(entry: WitEntry) -> WitSvid:
    svid = WitSvid.parse(entry.token, entry.key, entry.hint)
    if svid.id != entry.id:
        raise Malformed(f"the Workload API calls the WIT-SVID of `{svid.id}` another name")
    return svid


def _token(entry: wire.JwtEntry) -> JwtSvid:
    svid = jwtsvid.parse_unverified(entry.token, entry.hint)
    if svid.id != entry.id:
        raise Malformed(f"the Workload API calls the JWT-SVID of `{svid.id}` another name")
    return svid
