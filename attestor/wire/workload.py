"""The SPIFFE Workload API: its methods by name, and its messages as values (SPIFFE_Workload_API.md).

The messages are compiled under a package of our own, so the service's paths are written here by hand. A value holds DER
and JSON as bytes, because a node agent forwards them and must not take them apart for every caller. A client that reads
a message with a mandatory field left empty discards it whole (WL-8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format, struct_pb2

from attestor._proto import workload_pb2 as pb
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain

SERVICE = "SpiffeWorkloadAPI"
FETCH_X509_SVID = f"/{SERVICE}/FetchX509SVID"  # server stream
FETCH_X509_BUNDLES = f"/{SERVICE}/FetchX509Bundles"  # server stream
FETCH_JWT_SVID = f"/{SERVICE}/FetchJWTSVID"  # unary
FETCH_JWT_BUNDLES = f"/{SERVICE}/FetchJWTBundles"  # server stream
VALIDATE_JWT_SVID = f"/{SERVICE}/ValidateJWTSVID"  # unary

SECURITY_HEADER = ("workload.spiffe.io", "true")
"""On every request; without it the answer is InvalidArgument, so no web page can be made to ask (SPIFFE endpoint)."""

CRL_HEADER = ("sojourn-crl", "true")
"""On the request of a stream that wants `crl` filled; others are spared lists of hundreds of kilobytes (traps 4)."""

LONGEST_HINT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Entry:
    """One X.509-SVID as it travels. `key` is PKCS#8, `chain` and `bundle` are concatenated DER."""

    id: SpiffeId
    chain: bytes
    key: bytes = field(repr=False)
    bundle: bytes
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Update:
    """Everything a workload holds, each time (WL-4). The first entry is the default identity (WL-17)."""

    svids: tuple[X509Entry, ...]
    crl: tuple[bytes, ...] = ()
    federated: Mapping[TrustDomain, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRequest:
    """Which tokens are wanted; without `id` one for each identity."""

    audience: tuple[str, ...]
    id: SpiffeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtEntry:
    """One JWT-SVID as it travels."""

    id: SpiffeId
    token: str = field(repr=False)
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """What a token said, after its signature, audience and time were checked."""

    id: SpiffeId
    claims: Mapping[str, Any]


def encode_x509(update: X509Update) -> pb.X509SVIDResponse:
    """For a server."""
    svids = [
        pb.X509SVID(spiffe_id=str(one.id), x509_svid=one.chain, x509_svid_key=one.key, bundle=one.bundle, hint=one.hint)
        for one in update.svids
    ]
    federated = {str(domain.id): der for domain, der in update.federated.items()}
    return pb.X509SVIDResponse(svids=svids, crl=update.crl, federated_bundles=federated)


def decode_x509(message: pb.X509SVIDResponse) -> X509Update:
    """For a client. Of several entries with one hint only the first is kept (WL-10). Raises Malformed."""
    if not message.svids:
        raise Malformed("the Workload API sent no X.509-SVID, at least one was expected")
    kept: dict[object, X509Entry] = {}
    for index, svid in enumerate(message.svids):
        entry = _decode_entry(svid)
        kept.setdefault(entry.hint or index, entry)
    return X509Update(svids=tuple(kept.values()), crl=tuple(message.crl), federated=_domains(message.federated_bundles))


def _decode_entry(svid: pb.X509SVID) -> X509Entry:
    for name in ("spiffe_id", "x509_svid", "x509_svid_key", "bundle"):
        if not getattr(svid, name):
            raise Malformed(f"the Workload API sent an X.509-SVID with an empty `{name}`")
    return X509Entry(
        id=SpiffeId.parse(svid.spiffe_id),
        chain=svid.x509_svid,
        key=svid.x509_svid_key,
        bundle=svid.bundle,
        hint=svid.hint,
    )


def encode_x509_bundles(bundles: Mapping[TrustDomain, bytes], crl: tuple[bytes, ...] = ()) -> pb.X509BundlesResponse:
    """For a server; the values are concatenated DER."""
    return pb.X509BundlesResponse(bundles={str(domain.id): der for domain, der in bundles.items()}, crl=crl)


def decode_x509_bundles(message: pb.X509BundlesResponse) -> Mapping[TrustDomain, bytes]:
    """For a client. Raises Malformed."""
    return _some(_domains(message.bundles))


def encode_jwt_request(request: JwtRequest) -> pb.JWTSVIDRequest:
    """For a client."""
    return pb.JWTSVIDRequest(audience=request.audience, spiffe_id=str(request.id) if request.id else "")


def decode_jwt_request(message: pb.JWTSVIDRequest) -> JwtRequest:
    """For a server. Raises Malformed: no audience, an empty one, or a bad id (WL-14)."""
    if not message.audience or not all(message.audience):
        raise Malformed("a JWT-SVID needs at least one audience, and none may be empty")
    return JwtRequest(
        audience=tuple(message.audience), id=SpiffeId.parse(message.spiffe_id) if message.spiffe_id else None
    )


def encode_jwt(entries: tuple[JwtEntry, ...]) -> pb.JWTSVIDResponse:
    """For a server."""
    return pb.JWTSVIDResponse(
        svids=[pb.JWTSVID(spiffe_id=str(one.id), svid=one.token, hint=one.hint) for one in entries]
    )


def decode_jwt(message: pb.JWTSVIDResponse) -> tuple[JwtEntry, ...]:
    """For a client. Raises Malformed."""
    if not message.svids or not all(svid.spiffe_id and svid.svid for svid in message.svids):
        raise Malformed("the Workload API sent no JWT-SVID, or an empty one")
    return tuple(JwtEntry(id=SpiffeId.parse(svid.spiffe_id), token=svid.svid, hint=svid.hint) for svid in message.svids)


def encode_jwt_bundles(bundles: Mapping[TrustDomain, bytes]) -> pb.JWTBundlesResponse:
    """For a server; the values are JWKS documents that hold only JWT keys (WL-15)."""
    return pb.JWTBundlesResponse(bundles={str(domain.id): jwks for domain, jwks in bundles.items()})


def decode_jwt_bundles(message: pb.JWTBundlesResponse) -> Mapping[TrustDomain, bytes]:
    """For a client. Raises Malformed."""
    return _some(_domains(message.bundles))


def encode_validate(token: str, audience: str) -> pb.ValidateJWTSVIDRequest:
    """For a client."""
    return pb.ValidateJWTSVIDRequest(audience=audience, svid=token)


def decode_validate(message: pb.ValidateJWTSVIDRequest) -> tuple[str, str]:
    """For a server: token and audience. Raises Malformed."""
    if not message.audience or not message.svid:
        raise Malformed("a JWT-SVID is validated against one audience; neither may be empty")
    return message.svid, message.audience


def encode_validated(validated: Validated) -> pb.ValidateJWTSVIDResponse:
    """For a server. Raises Malformed: a claim is nothing a Struct holds, such as a number beyond every double."""
    try:
        claims = json_format.ParseDict(dict(validated.claims), struct_pb2.Struct())
    except (json_format.ParseError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed("the token holds a claim that this API can't carry") from error
    return pb.ValidateJWTSVIDResponse(spiffe_id=str(validated.id), claims=claims)


def decode_validated(message: pb.ValidateJWTSVIDResponse) -> Validated:
    """For a client. Raises Malformed."""
    return Validated(id=SpiffeId.parse(message.spiffe_id), claims=json_format.MessageToDict(message.claims))


def _domains(bundles: Mapping[str, bytes]) -> dict[TrustDomain, bytes]:
    return {TrustDomain.parse(name): content for name, content in bundles.items()}


def _some(bundles: dict[TrustDomain, bytes]) -> dict[TrustDomain, bytes]:
    if not bundles:
        raise Malformed("the Workload API sent no bundle, at least one was expected")
    return bundles
