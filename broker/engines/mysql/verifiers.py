"""What is sent instead of a password: a value that proves it and, in a log or a table, can't be used as one.

native    MariaDB's default: SHA-1 twice. Of a 256-bit password it can't be turned back; but together with one
          recorded login it lets its holder in, so it is for connections under TLS, or on loopback
ed25519   MariaDB: a public key. The password is the 32-byte seed of its private key, so what any library makes of
          the seed is what MariaDB makes of the password
sha2      MySQL's default, `caching_sha2_password`: sha256-crypt with 5000 rounds and a salt of 20 characters
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import string
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.engines.mysql.principal import literal
from broker.engines.passwords import new_password

_ROUNDS = 5000
_SALT_ALPHABET = string.ascii_letters + string.digits
_CRYPT64 = "./" + string.digits + string.ascii_uppercase + string.ascii_lowercase


def password_for(kind: str) -> str:
    """A new password; for `ed25519` one of exactly 32 bytes, with 170 random bits."""
    whole = new_password()
    return whole[:29] + whole[-3:] if kind == "ed25519" else whole


def identified(kind: str, password: str) -> str:
    """The clause of CREATE USER and ALTER USER; of a form both servers read."""
    plugin, verifier = _PLUGINS[kind], _VERIFIERS[kind](password)
    return f"IDENTIFIED WITH {plugin} AS {literal(verifier)}"


def native(password: str) -> str:
    """`mysql_native_password`: a star and SHA1(SHA1(password)) in hex."""
    return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()  # noqa: S324 - their form


def ed25519(password: str) -> str:
    """`ed25519`: the public key of the seed `password`, base64 without padding. Needs 32 bytes."""
    key = Ed25519PrivateKey.from_private_bytes(password.encode())
    return base64.b64encode(key.public_key().public_bytes_raw()).decode().rstrip("=")


def sha2(password: str, salt: str | None = None) -> str:
    """`caching_sha2_password`: `$A$005$`, 20 characters of salt, 43 of sha256-crypt."""
    salt = salt or "".join(secrets.choice(_SALT_ALPHABET) for _ in range(20))
    return f"$A$005${salt}{_sha256_crypt(password.encode(), salt.encode())}"


def _sha256_crypt(password: bytes, salt: bytes) -> str:
    """Drepper's SHA-crypt; MySQL does not cut the salt to 16 characters."""
    length = len(password)
    once = hashlib.sha256(password + salt + password).digest()
    mixed = hashlib.sha256(password + salt + _stretched(once, length))
    bits = length
    while bits:
        mixed.update(once if bits & 1 else password)
        bits >>= 1
    digest = mixed.digest()
    secret = _stretched(hashlib.sha256(password * length).digest(), length)
    salted = _stretched(hashlib.sha256(salt * (16 + digest[0])).digest(), len(salt))
    for number in range(_ROUNDS):
        step = hashlib.sha256(secret if number & 1 else digest)
        if number % 3:
            step.update(salted)
        if number % 7:
            step.update(secret)
        step.update(digest if number & 1 else secret)
        digest = step.digest()
    return _crypt64(digest)


def _stretched(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def _crypt64(digest: bytes) -> str:
    """Their own base64 in their own order of bytes."""
    first, text = (0, 10, 20), ""
    for _ in range(10):
        text += _four(digest[first[0]] << 16 | digest[first[1]] << 8 | digest[first[2]], 4)
        first = _following(first)
    return text + _four(digest[31] << 8 | digest[30], 3)


def _following(places: tuple[int, int, int]) -> tuple[int, int, int]:
    high, middle, low = places
    return (low + 1, high + 1, middle + 1)


def _four(number: int, count: int) -> str:
    text = ""
    for _ in range(count):
        text += _CRYPT64[number & 63]
        number >>= 6
    return text


_PLUGINS: Mapping[str, str] = {
    "native": "mysql_native_password",
    "ed25519": "ed25519",
    "sha2": "caching_sha2_password",
}
_VERIFIERS: Mapping[str, Callable[[str], str]] = {"native": native, "ed25519": ed25519, "sha2": sha2}
