"""How we prove to an OAuth server which client we are: by a signed assertion (RFC 7523), or by a shared secret.

The key of an assertion is made in the broker's own store for this one server and used for nothing else; the server is
given its public half once (`sojourn target ca NAME`).
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote_plus

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from broker.errors import NotPossible
from ca.errors import Unavailable
from ca.keys.protocol import KeyStore, Purpose, SigningKey, load_or_create
from ca.runtime.secret import Reference

_LIFE = timedelta(seconds=60)
_COORDINATE = 32
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request carries: form fields, and headers."""

    fields: Mapping[str, str]
    headers: Mapping[str, str]


class Client(Protocol):
    """Somebody who can prove to be a client."""

    async def prove(self, audience: str, now: datetime) -> Proof:
        """For one request to whoever `audience` names. Raises Unavailable, Malformed."""

    async def authority(self) -> str:
        """What the server is given to believe it. Raises NotPossible, Unavailable."""


@dataclass(frozen=True, slots=True)
class BySecret:
    """`client_secret_basic` (RFC 6749, 2.3.1); the secret is read anew each time."""

    client_id: str
    secret: Reference

    async def prove(self, audience: str, now: datetime) -> Proof:  # noqa: ARG002 - the same for everybody
        """Both parts are form-encoded first, as the standard wants and many forget."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret.read().reveal())}"
        return Proof(fields={}, headers={"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()})

    async def authority(self) -> str:
        """There is none. Raises NotPossible."""
        raise NotPossible("this client proves itself by a shared secret, there is no key its server must be given")


@dataclass(frozen=True, slots=True)
class ByKey:
    """`private_key_jwt` (RFC 7523, 2.2; OpenID Connect Core, 9)."""

    client_id: str
    keys: KeyStore | None
    key_name: str

    async def prove(self, audience: str, now: datetime) -> Proof:
        """An assertion for this server alone, good for a minute, with an id of its own."""
        key = await self._key()
        header = {"alg": "ES256", "typ": "JWT", "kid": key.key_id.hex()}
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now.timestamp()),
            "exp": int((now + _LIFE).timestamp()),
        }
        content = f"{_json(header)}.{_json(claims)}"
        r, s = decode_dss_signature(await key.sign(content.encode()))
        signature = _text(r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big"))
        fields = {"client_id": self.client_id, "client_assertion_type": ASSERTION}
        return Proof(fields={**fields, "client_assertion": f"{content}.{signature}"}, headers={})

    async def authority(self) -> str:
        """The public half as a JWK Set."""
        key = await self._key()
        numbers = key.public_key.public_numbers()
        x, y = (_text(number.to_bytes(_COORDINATE, "big")) for number in (numbers.x, numbers.y))
        named = {"kid": key.key_id.hex(), "use": "sig", "alg": "ES256"}
        return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y, **named}]}, indent=2)

    async def _key(self) -> SigningKey:
        if self.keys is None:
            raise Unavailable("the broker has no keys of its own here")
        return await load_or_create(self.keys, self.key_name, Purpose.OAUTH_CLIENT)


def _json(value: Mapping[str, Any]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
