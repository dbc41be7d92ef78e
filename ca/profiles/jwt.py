"""The JWT-SVID profile (JWT-SVID.md 2 and 3): ES256, `kid` always set, nothing in the header that the standard forbids.

The claims are `sub`, `aud` (always a list), `iat`, `exp`, `jti`, `iss` where the settings name one, and the attested
instance under a name that can't collide with anybody's. There is no `nbf`: the standard does not ask for one and
validators differ about it.

joserfc signs only with a private key it can hold, and ours may live in a token. So the signing input is put together
here from joserfc's own pieces, the authority has it signed as bytes, and `compact` turns the DER signature into the
fixed-length form of RFC 7518, 3.4. Tests verify the result with joserfc.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.util import json_b64encode, urlsafe_b64encode

from ca.profiles.prepared import MAKER, Issuer, Kind, Prepared
from ca.spiffe import jose
from ca.spiffe.id import SpiffeId
from ca.spiffe.jose import INSTANCE_CLAIM

ALGORITHM = "ES256"

_COORDINATE_BYTES = 32
_JTI_BITS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRequest:
    """Who is to be named to whom, and for how long."""

    id: SpiffeId
    audience: tuple[str, ...]
    instance: str | None
    ttl: timedelta


def kid(key_id: bytes) -> str:
    """How a JWT key is named in headers and bundles."""
    return key_id.hex()


def prepare(request: JwtRequest, issuer: Issuer, now: datetime) -> Prepared:
    """The token for `request`, ready to be signed by `issuer`."""
    issued = now.replace(microsecond=0)
    expires = (now + request.ttl).replace(microsecond=0)
    serial = secrets.randbits(_JTI_BITS) or 1
    header = {"alg": ALGORITHM, "kid": kid(issuer.key_id), "typ": "JWT"}
    claims: dict[str, object] = {
        "sub": str(request.id),
        "aud": list(request.audience),
        "iat": jose.seconds(issued),
        "exp": jose.seconds(expires),
        "jti": f"{serial:032x}",
    }
    if issuer.jwt_issuer:
        claims["iss"] = issuer.jwt_issuer
    if request.instance is not None:
        claims[INSTANCE_CLAIM] = request.instance
    return Prepared(
        MAKER,
        kind=Kind.JWT,
        tbs=json_b64encode(header) + b"." + json_b64encode(claims),
        subject=request.id,
        serial=serial,
        issuer_key_id=issuer.key_id,
        not_before=issued,
        not_after=expires,
        instance=request.instance,
        audience=request.audience,
    )


def compact(prepared: Prepared, signature: bytes) -> str:
    """The token in compact form, from the DER `signature` over it."""
    r, s = decode_dss_signature(signature)
    raw = r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
    return (prepared.tbs + b"." + urlsafe_b64encode(raw)).decode("ascii")
