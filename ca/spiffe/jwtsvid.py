"""JWT-SVIDs (JWT-SVID.md): read, and verified against the keys of the trust domain in `sub`, and of no other.

A bearer token is whoever holds it. So it is never in a repr or an error here, and its validity is as short as its
issuer made it: `LEEWAY` is only what honest clocks differ by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64decode

from ca.errors import Malformed
from ca.spiffe import strict_json
from ca.spiffe.bundle import BundleSet, PublicKey
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId

__all__ = ["ALGORITHMS", "LEEWAY", "LONGEST_TOKEN", "JwtSvid", "Untrusted", "parse_unverified", "verify"]

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
LEEWAY = timedelta(seconds=5)
"""How far two clocks may differ: what our own clock tolerates of itself."""
LONGEST_TOKEN = 16 * 1024

_HEADERS = frozenset({"alg", "kid", "typ"})
_TYPES = ("JWT", "JOSE")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999 = 253_402_300_799
_WHAT = "a JWT-SVID"


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSvid:
    """A token and what it says; proven when it comes from `verify`."""

    id: SpiffeId
    audience: tuple[str, ...]
    expires_at: datetime
    claims: Mapping[str, Any] = field(repr=False)
    token: str = field(repr=False)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    svid: JwtSvid
    key_id: str | None
    not_before: datetime | None


def verify(token: str, audience: str, bundles: BundleSet, now: datetime) -> JwtSvid:
    """What `token` says to `audience` at the time `now`, proven.

    Raises:
        Malformed: it is no JWS in compact form, or its JSON can't be read.
        Untrusted: it breaks a rule of JWT-SVID.md, is for somebody else, is out of its time, or no key of its own
            trust domain signed it.
    """
    if not audience:
        raise Malformed("a JWT-SVID is verified for an audience, and none was given")
    read = _read(token)
    svid = read.svid
    if not _signed(token, _candidates(read, bundles)):
        raise Untrusted(f"the token of `{svid.id}` is signed by no key of `{svid.id.trust_domain}`")
    if audience not in svid.audience:
        raise Untrusted(f"the token of `{svid.id}` is meant for another audience")
    if now >= svid.expires_at + LEEWAY:
        raise Untrusted(f"the token of `{svid.id}` expired at {svid.expires_at:%Y-%m-%dT%H:%M:%SZ}")
    if read.not_before is not None and now < read.not_before - LEEWAY:
        raise Untrusted(f"the token of `{svid.id}` is not valid before {read.not_before:%Y-%m-%dT%H:%M:%SZ}")
    return svid


def parse_unverified(token: str, hint: str = "") -> JwtSvid:
    """What `token` says, believed by nobody: for the client that fetched it itself. Raises as `verify` does."""
    svid = _read(token).svid
    return JwtSvid(
        id=svid.id,
        audience=svid.audience,
        expires_at=svid.expires_at,
        claims=svid.claims,
        token=token,
        hint=hint,
    )


def _read(token: str) -> _Read:
    header, payload = _segments(token)
    key_id = _check_header(header)
    try:
        spiffe_id = SpiffeId.parse(_text(payload, "sub"))
    except Malformed as error:
        raise Untrusted(f"the token's `sub` is not a SPIFFE ID: {error}") from error
    svid = JwtSvid(
        id=spiffe_id,
        audience=_audience(payload),
        expires_at=_moment(payload, "exp"),
        claims=MappingProxyType(payload),
        token=token,
    )
    if "iat" in payload:
        _moment(payload, "iat")
    return _Read(svid, key_id, _moment(payload, "nbf") if "nbf" in payload else None)


def _segments(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if len(token) > LONGEST_TOKEN:
        raise Malformed(f"{_WHAT} is longer than {LONGEST_TOKEN} bytes")
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii() or not all(parts[:2]):
        raise Malformed(f"{_WHAT} is a JWS in compact form: three parts with dots between them")
    try:
        header, payload = (urlsafe_b64decode(part.encode()) for part in parts[:2])
    except ValueError as error:
        raise Malformed(f"{_WHAT} has a part that is not base64url") from error
    return (
        strict_json.read_object(header, "the header of a JWT-SVID", LONGEST_TOKEN),
        strict_json.read_object(payload, "the payload of a JWT-SVID", LONGEST_TOKEN),
    )


def _check_header(header: Mapping[str, Any]) -> str | None:
    if header.get("alg") not in ALGORITHMS:
        raise Untrusted("the token's `alg` is not one of the nine a JWT-SVID may have")
    if not header.keys() <= _HEADERS:
        raise Untrusted("the token's header holds more than `alg`, `kid` and `typ`")
    if "typ" in header and header["typ"] not in _TYPES:
        raise Untrusted("the token's `typ` is neither `JWT` nor `JOSE`")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise Untrusted("the token's `kid` is not a text")
    return key_id


def _text(payload: Mapping[str, Any], claim: str) -> str:
    value = payload.get(claim)
    if not isinstance(value, str):
        raise Untrusted(f"the token has no `{claim}`")
    return value


def _audience(payload: Mapping[str, Any]) -> tuple[str, ...]:
    value = payload.get("aud")
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(each, str) and each for each in values):
        raise Untrusted("the token has no `aud`: expected a text or a list of texts")
    return tuple(values)


def _moment(payload: Mapping[str, Any], claim: str) -> datetime:
    value = payload.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _YEAR_9999:
        raise Untrusted(f"the token has no `{claim}` that is a time")
    return _EPOCH + timedelta(seconds=value)


def _candidates(read: _Read, bundles: BundleSet) -> Iterable[PublicKey]:
    domain = read.svid.id.trust_domain
    bundle = bundles.get(domain)
    if bundle is None:
        raise Untrusted(f"no bundle is known for the trust domain `{domain}` of `{read.svid.id}`")
    if not bundle.jwt_authorities:
        raise Untrusted(f"the bundle of `{domain}` has no JWT authority, so no token of that domain is trusted")
    if read.key_id is None:  # the standard leaves it out of what a token must have
        return bundle.jwt_authorities.values()
    key = bundle.jwt_authorities.get(read.key_id)
    if key is None:
        raise Untrusted(f"the bundle of `{domain}` has no key with the token's `kid`")
    return (key,)


def _signed(token: str, candidates: Iterable[PublicKey]) -> bool:
    return any(_signed_by(token, key) for key in candidates)


def _signed_by(token: str, key: PublicKey) -> bool:
    jwk = ECKey.import_key(key) if isinstance(key, ec.EllipticCurvePublicKey) else RSAKey.import_key(key)
    try:
        jws.deserialize_compact(token, jwk, algorithms=ALGORITHMS)
    except (JoseError, ValueError, UnsupportedAlgorithm):
        return False
    return True
