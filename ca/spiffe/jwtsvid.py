"""JWT-SVIDs (JWT-SVID.md): read, and verified against the keys of the trust domain in `sub`, and of no other.

A bearer token is whoever holds it. So it is never in a repr or an error here, and its validity is as short as its
issuer made it: `LEEWAY` is only what honest clocks differ by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from ca.errors import Malformed
from ca.spiffe import jose
from ca.spiffe.bundle import BundleSet, PublicKey
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId
from ca.spiffe.jose import ALGORITHMS, LEEWAY, LONGEST_TOKEN

__all__ = ["ALGORITHMS", "LEEWAY", "LONGEST_TOKEN", "JwtSvid", "Untrusted", "parse_unverified", "verify"]

_HEADERS = frozenset({"alg", "kid", "typ"})
_TYPES = ("JWT", "JOSE")
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
    algorithm: str
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
    if not any(jose.signed_by(token, read.algorithm, key) for key in _candidates(read, bundles)):
        raise Untrusted(f"the token of `{svid.id}` is signed by no key of `{svid.id.trust_domain}`")
    if audience not in svid.audience:
        raise Untrusted(f"the token of `{svid.id}` is meant for another audience")
    if now - LEEWAY >= svid.expires_at:
        raise Untrusted(f"the token of `{svid.id}` expired at {svid.expires_at:%Y-%m-%dT%H:%M:%SZ}")
    if read.not_before is not None and now + LEEWAY < read.not_before:
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
    header, payload = jose.take_apart(token, _WHAT)
    key_id = _check_header(header)
    try:
        spiffe_id = SpiffeId.parse(jose.text_of(payload, "sub"))
    except Malformed as error:
        raise Untrusted(f"the token's `sub` is not a SPIFFE ID: {error}") from error
    svid = JwtSvid(
        id=spiffe_id,
        audience=_audience(payload),
        expires_at=jose.moment_of(payload, "exp"),
        claims=MappingProxyType(payload),
        token=token,
    )
    if "iat" in payload:
        jose.moment_of(payload, "iat")
    return _Read(svid, header["alg"], key_id, jose.moment_of(payload, "nbf") if "nbf" in payload else None)


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


def _audience(payload: Mapping[str, Any]) -> tuple[str, ...]:
    value = payload.get("aud")
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(each, str) and each for each in values):
        raise Untrusted("the token has no `aud`: expected a text or a list of texts")
    return tuple(values)


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
