"""The verifiers made of passwords (RFC 5802, RFC 7677): PostgreSQL never sees a password.

A statement that fails is written to the server's log with everything in it (testing 4.5), so what is sent is always a
verifier made here. Two kinds: `scram-4096` is what every driver accepts; `scram-few` has one round, which a 256-bit
password makes no weaker and a server hashes two hundred times faster (PostgreSQL runs the rounds itself once, to refuse
an empty password). Some drivers refuse few rounds, so it is chosen per target.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

ROUNDS: Mapping[str, int] = {"scram-4096": 4096, "scram-few": 1}
"""Kind of secret → rounds of PBKDF2."""


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
