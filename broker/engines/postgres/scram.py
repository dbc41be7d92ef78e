"""Passwords and the verifiers made of them (RFC 5802, RFC 7677): PostgreSQL never sees a password.

A statement that fails is written to the server's log with everything in it (testing 4.5), so what is sent is always a
verifier made here. Two kinds: `scram-4096` is what every driver accepts; `scram-few` has one round, which a 256-bit
password makes no weaker and a server hashes two hundred times faster (PostgreSQL runs the rounds itself once, to refuse
an empty password). Some drivers refuse few rounds, so it is chosen per target.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import secrets
import string
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

ROUNDS: Mapping[str, int] = {"scram-4096": 4096, "scram-few": 1}
"""Kind of secret → rounds of PBKDF2."""

_ALPHABET = string.ascii_letters + string.digits
_RANDOM = 43
"""Characters drawn from 62: log2(62^43) = 256 bits."""

_PLACES = (
    string.ascii_letters,
    *[_ALPHABET] * _RANDOM,
    string.ascii_lowercase,
    string.ascii_uppercase,
    string.digits,
)
"""What may stand at each place: it begins with a letter, so no reader takes it for a number, and ends with one of each
class for the rules of targets that want them; those four are on top of the 256 bits."""

_KINDS = math.prod(len(characters) for characters in _PLACES)


def new_password() -> str:
    """256 random bits in characters that mean nothing to a URL, a shell, SQL or YAML; drawn at once, without bias."""
    number, drawn = secrets.randbelow(_KINDS), []
    for characters in _PLACES:
        number, place = divmod(number, len(characters))
        drawn.append(characters[place])
    return "".join(drawn)


def verifier(password: str, rounds: int) -> str:
    """PostgreSQL's text for a SCRAM-SHA-256 verifier: it proves a password and can't be used as one.

    The rounds are the dearest part of making a secret; the OpenSSL that `cryptography` brings does them twice as fast
    as the one under `hashlib`.
    """
    salt = secrets.token_bytes(16)
    salted = PBKDF2HMAC(algorithm=SHA256(), length=32, salt=salt, iterations=rounds).derive(password.encode())
    stored = hashlib.sha256(_keyed(salted, b"Client Key")).digest()
    server = _keyed(salted, b"Server Key")
    return f"SCRAM-SHA-256${rounds}:{_text(salt)}${_text(stored)}:{_text(server)}"


def _keyed(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
