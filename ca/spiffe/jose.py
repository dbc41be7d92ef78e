"""What the three signed tokens here have in common: a JWS in compact form, taken apart strictly (RFC 7515, 7519).

JWT-SVID, WIT-SVID and the proof that goes with a WIT differ in what their header and claims must be; how they are cut,
which algorithms exist at all, and what a time in a claim is, is the same for all and stands here. The key decides which
algorithms are possible and the header only says which one was used: a MAC, `none`, and an algorithm of another kind of
key than the one at hand verify nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import json_b64encode, urlsafe_b64decode, urlsafe_b64encode

from ca.errors import Malformed
from ca.spiffe import strict_json
from ca.spiffe.errors import Untrusted
from ca.spiffe.jwk import PublicKey

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
"""All there are (JWT-SVID.md 2.1, WIT-SVID.md 2.3)."""
LEEWAY = timedelta(seconds=5)
"""How far two clocks may differ: what our own clock tolerates of itself."""
LONGEST_TOKEN = 16 * 1024
INSTANCE_CLAIM = "urn:sojourn:instance"
"""The attested instance, in 32 hexadecimal digits, under a name that can't collide with anybody's."""

_INSTANCE = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_9999 = 253_402_300_799


def take_apart(token: str, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of `token`, believed by nobody yet; `what` names it in the error's sentence.

    Raises:
        Malformed: it is no JWS in compact form, longer than 16 KiB, or its JSON can't be read.
    """
    if len(token) > LONGEST_TOKEN:
        raise Malformed(f"{what} is longer than {LONGEST_TOKEN} bytes")
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii() or not all(parts[:2]):
        raise Malformed(f"{what} is a JWS in compact form: three parts with dots between them")
    try:
        header, payload = (urlsafe_b64decode(part.encode()) for part in parts[:2])
    except ValueError as error:
        raise Malformed(f"{what} has a part that is not base64url") from error
    return (
        strict_json.read_object(header, f"the header of {what}", LONGEST_TOKEN),
        strict_json.read_object(payload, f"the payload of {what}", LONGEST_TOKEN),
    )


def signed_by(token: str, algorithm: str, key: PublicKey) -> bool:
    """Whether `key` signed `token` with `algorithm`, one of the nine; False for any that does not go with the key."""
    if algorithm not in ALGORITHMS:
        return False
    signed, _, signature = token.rpartition(".")
    model = JWSRegistry.algorithms[algorithm]
    jwk = ECKey.import_key(key) if isinstance(key, ec.EllipticCurvePublicKey) else RSAKey.import_key(key)
    try:
        model.check_key(jwk)
        return model.verify(signed.encode(), urlsafe_b64decode(signature.encode()), jwk)
    except (JoseError, ValueError, UnsupportedAlgorithm):
        return False


def sign(
    header: Mapping[str, Any], claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> str:
    """A token over these, in compact form, with the algorithm the header names; for a key that is in memory."""
    text = json_b64encode(dict(header)) + b"." + json_b64encode(dict(claims))
    jwk = ECKey.import_key(key) if isinstance(key, ec.EllipticCurvePrivateKey) else RSAKey.import_key(key)
    model = JWSRegistry.algorithms[header["alg"]]
    model.check_key(jwk)
    return (text + b"." + urlsafe_b64encode(model.sign(text, jwk))).decode("ascii")


def text_of(claims: Mapping[str, Any], claim: str) -> str:
    """A claim that must be there, as a text. Raises Untrusted."""
    value = claims.get(claim)
    if not isinstance(value, str):
        raise Untrusted(f"the token has no `{claim}`")
    return value


def moment_of(claims: Mapping[str, Any], claim: str) -> datetime:
    """A claim that must be there, as a time. Raises Untrusted."""
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _YEAR_9999:
        raise Untrusted(f"the token has no `{claim}` that is a time")
    return _EPOCH + timedelta(seconds=value)


def instance_of(claims: Mapping[str, Any]) -> str | None:
    """The instance a token claims, in the form every instance has."""
    value = claims.get(INSTANCE_CLAIM)
    return value if isinstance(value, str) and _INSTANCE.fullmatch(value) else None


def seconds(moment: datetime) -> int:
    """A time as a claim has it."""
    return int((moment - _EPOCH) / timedelta(seconds=1))
