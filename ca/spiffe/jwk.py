"""One element of a bundle's JWK Set: a CA certificate or a token key, read and written.

A reader answers None for an element it must ignore: unknown `kty`, no or empty `x5c`, a key no algorithm of
JWT-SVID.md can use. Symmetric keys are always ignored: whoever reads the bundle could sign with one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import base64_to_int

from ca.errors import Malformed
from ca.spiffe import der

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

X509_USE = "x509-svid"
JWT_USE = "jwt-svid"
WIT_USE = "wit-svid"
SMALLEST_RSA = 2048
LARGEST_RSA = 8192

_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
_LONGEST_NUMBER = 2048


def read_key(element: Mapping[str, Any]) -> PublicKey | None:
    """The public key, when it is one of a kind that signs SVIDs; whatever else the element holds is not looked at."""
    if shows_private(element):
        return None  # it vouches for nobody
    try:
        if element.get("kty") == "EC":
            key = _curve_key(element)
        elif element.get("kty") == "RSA":
            key = _rsa_key(element)
        else:
            return None
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if fits(key) else None


def shows_private(element: Mapping[str, Any]) -> bool:
    """Whether the element holds a private or a symmetric key, or a part of one."""
    return not _PRIVATE.isdisjoint(element)


def algorithms_of(key: PublicKey) -> tuple[str, ...]:
    """The algorithms of JWT-SVID.md the key can sign with, the usual one first."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return (_CURVE_ALGORITHMS[key.curve.name],)
    return _RSA_ALGORITHMS


def fits(key: object) -> bool:
    """Whether an algorithm of JWT-SVID.md, and path validation, can use the key."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, tuple(_CURVES.values()))
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    return SMALLEST_RSA <= key.key_size <= LARGEST_RSA and key.public_numbers().e.bit_length() <= 32


def read_certificate(element: Mapping[str, Any]) -> x509.Certificate | None:
    """The CA certificate: the first of `x5c`, and only it; its key must be the one the element itself shows."""
    values, key = element.get("x5c"), read_key(element)
    if not isinstance(values, list) or not values or not isinstance(values[0], str) or key is None:
        return None
    try:
        certificate = der.certificate(base64.b64decode(values[0], validate=True), "a bundle")
        return certificate if is_authority(certificate) and certificate.public_key() == key else None
    except (Malformed, binascii.Error, ValueError, UnsupportedAlgorithm):
        return None


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate says it may sign others (X509-SVID.md 4.1, 4.3)."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *der.UNREADABLE):
        return False
    return constraints.ca and usage.key_cert_sign


def of_certificate(certificate: x509.Certificate) -> dict[str, Any]:
    """The element of an X.509 authority: no `kid`, exactly one certificate in `x5c`."""
    encoded = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    return {**_numbers(certificate.public_key()), "use": X509_USE, "x5c": [encoded]}


def of_jwt_key(key_id: str, key: PublicKey) -> dict[str, Any]:
    """The element of a key that signs JWT-SVIDs."""
    return {**_numbers(key), "use": JWT_USE, "kid": key_id}


def of_openid_key(key_id: str, key: PublicKey) -> dict[str, Any]:
    """The same key as OpenID Connect has it: `use` is `sig`, and the algorithm is said."""
    return {**_numbers(key), "use": "sig", "alg": algorithms_of(key)[0], "kid": key_id}


def of_wit_key(key_id: str, key: PublicKey) -> dict[str, Any]:
    """The element of a key that signs WIT-SVIDs."""
    return {**_numbers(key), "use": WIT_USE, "kid": key_id}


def of_confirmation(key: PublicKey) -> dict[str, Any]:
    """A workload's own key as the `cnf` of its WIT-SVID has it, with the one algorithm its proofs are signed by."""
    return {**_numbers(key), "alg": algorithms_of(key)[0]}


def _numbers(key: object) -> dict[str, Any]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _only(ECKey.import_key(key).as_dict(private=False), "kty", "crv", "x", "y")
    if isinstance(key, rsa.RSAPublicKey):
        return _only(RSAKey.import_key(key).as_dict(private=False), "kty", "n", "e")
    raise Malformed("a bundle holds only elliptic curve and RSA keys")


def _only(members: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: members[name] for name in names}


def _curve_key(element: Mapping[str, Any]) -> PublicKey:
    curve = _CURVES.get(_text(element, "crv"))
    if curve is None:
        raise ValueError("an unknown curve")
    return ec.EllipticCurvePublicNumbers(_number(element, "x"), _number(element, "y"), curve()).public_key()


def _rsa_key(element: Mapping[str, Any]) -> PublicKey:
    return rsa.RSAPublicNumbers(_number(element, "e"), _number(element, "n")).public_key()


def _number(element: Mapping[str, Any], name: str) -> int:
    return base64_to_int(_text(element, name))


def _text(element: Mapping[str, Any], name: str) -> str:
    value = element.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST_NUMBER:
        raise ValueError("no text, or one too long")
    return value
