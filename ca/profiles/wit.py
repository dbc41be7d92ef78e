"""The WIT-SVID profile (WIT-SVID.md 2 and 3): ES256, `kid` and `typ` always set, the workload's key in `cnf`.

The claims are `sub`, `iat`, `exp`, `jti`, `cnf`, and the attested instance as in a JWT-SVID. Never `aud`: for whom a
message is, its proof says. Never `iss`: what an OpenID verifier finds no key for, it can't mistake for an ID token.

Nobody has to show the server that they hold the key: naming another's gains nothing, for a proof is bound to one WIT.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.util import json_b64encode

from ca.errors import Malformed
from ca.profiles.jwt import ALGORITHM, compact, kid
from ca.profiles.prepared import MAKER, Issuer, Kind, Prepared
from ca.spiffe import jose, jwk
from ca.spiffe.id import SpiffeId
from ca.spiffe.jwk import PublicKey
from ca.spiffe.witsvid import TYPE

__all__ = ["WitRequest", "compact", "prepare"]

_JTI_BITS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class WitRequest:
    """Who is to be named with which key, and for how long; `public_key` is a SubjectPublicKeyInfo in DER."""

    id: SpiffeId
    public_key: bytes = field(repr=False)
    instance: str | None
    ttl: timedelta


def prepare(request: WitRequest, issuer: Issuer, now: datetime) -> Prepared:
    """The token for `request`, ready to be signed by `issuer`.

    Raises:
        Malformed: the public key is none that an algorithm of the standard can use.
    """
    issued = now.replace(microsecond=0)
    expires = (now + request.ttl).replace(microsecond=0)
    serial = secrets.randbits(_JTI_BITS) or 1
    header = {"alg": ALGORITHM, "kid": kid(issuer.key_id), "typ": TYPE}
    claims: dict[str, object] = {
        "sub": str(request.id),
        "iat": jose.seconds(issued),
        "exp": jose.seconds(expires),
        "jti": f"{serial:032x}",
        "cnf": {"jwk": jwk.of_confirmation(_public_key(request.public_key))},
    }
    if request.instance is not None:
        claims[jose.INSTANCE_CLAIM] = request.instance
    return Prepared(
        MAKER,
        kind=Kind.WIT,
        tbs=json_b64encode(header) + b"." + json_b64encode(claims),
        subject=request.id,
        serial=serial,
        issuer_key_id=issuer.key_id,
        not_before=issued,
        not_after=expires,
        instance=request.instance,
    )


def _public_key(spki: bytes) -> PublicKey:
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("the key for a WIT-SVID is not a SubjectPublicKeyInfo in DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) or not jwk.fits(key):
        raise Malformed("the key for a WIT-SVID must be P-256, P-384, P-521 or RSA of 2048 to 8192 bits")
    return key
