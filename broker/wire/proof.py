"""Proof that a request comes from the holder of the key a task was opened with (the form of RFC 9449, DPoP).

A task opened by a program that won't be there for the next call (`sojourn task open`) is proven by a key instead of an
instance. The header `DPoP` carries a JWS over method, address and moment by that key; its RFC 7638 thumbprint was
registered when the task was opened. A proof is good once, for `FRESH`, and for one method and path.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from ca.errors import Unauthenticated

HEADER = "DPoP"
FRESH = timedelta(seconds=60)
"""How far `iat` may lie from the broker's time, in both directions."""

_TYPE = "dpop+jwt"
_ALGORITHMS = ("ES256",)
_LONGEST = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof that was verified: the key's thumbprint, and the id that must be new until `good_until`."""

    thumbprint: str
    id: str
    good_until: datetime


def new_key() -> ECKey:
    """A P-256 key for one task."""
    return ECKey.generate_key("P-256")


def mint(key: ECKey, method: str, path: str, now: datetime) -> str:
    """The header's value for one request."""
    header = {"alg": "ES256", "typ": _TYPE, "jwk": key.as_dict(private=False)}
    claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": path, "iat": int(now.timestamp())}
    return jws.serialize_compact(header, json.dumps(claims), key, algorithms=list(_ALGORITHMS))


def verify(header: str, method: str, path: str, now: datetime) -> Proof:
    """Verify one header's value.

    Raises:
        Unauthenticated: not a proof for this request, or not a fresh one; the caller must also see that `id` is new.
    """
    if len(header) > _LONGEST:
        raise Unauthenticated(f"the proof is longer than {_LONGEST} characters")
    try:
        key = _public_key(header)
        claims = json.loads(jws.deserialize_compact(header, key, algorithms=list(_ALGORITHMS)).payload or b"")
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unauthenticated("the proof can't be read or its signature is wrong") from error
    if not isinstance(claims, dict):
        raise Unauthenticated("the proof's claims are not an object")
    return _judge(claims, key.thumbprint(), method, path, now)


def _public_key(header: str) -> ECKey:
    said = jws.extract_compact(header.encode()).headers()
    jwk = said["jwk"]
    if said.get("typ") != _TYPE or not isinstance(jwk, dict) or "d" in jwk or jwk.get("crv") != "P-256":
        raise ValueError("not a proof's header")
    return ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})


def _judge(claims: dict[str, Any], thumbprint: str, method: str, path: str, now: datetime) -> Proof:
    if claims.get("htm") != method or claims.get("htu") != path:
        raise Unauthenticated("the proof was made for another method or path")
    made, name = claims.get("iat"), claims.get("jti")
    if not isinstance(made, int) or not 0 <= made < 1 << 40 or abs(now.timestamp() - made) > FRESH.total_seconds():
        raise Unauthenticated(f"the proof is not fresh, expected one made within {int(FRESH.total_seconds())} s")
    if not isinstance(name, str) or not 8 <= len(name) <= 128:
        raise Unauthenticated("the proof has no usable `jti`")
    return Proof(thumbprint=thumbprint, id=name, good_until=now + 2 * FRESH)
