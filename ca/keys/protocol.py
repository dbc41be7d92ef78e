"""What a place for private keys must be, and what the keys in it are for.

Law: **one key, one purpose**. A key is made for a purpose and loads only for that purpose, so that nothing signed for
one reader can be shown to another. The purposes are these and no others:

    spiffe-root             signs the certificates of our issuing authorities and its own revocation lists
    spiffe-x509             an issuing authority: signs X.509-SVIDs and its own revocation lists
    spiffe-jwt              signs JWT-SVIDs
    spiffe-wit              signs WIT-SVIDs
    ssh-ca                  signs SSH user certificates of one target
    postgres-client-ca      signs PostgreSQL client certificates of one target
    oauth-client            proves the broker to one OAuth server
    tokens                  signs the broker's own tokens
    receipts                signs the broker's audit receipts

The first four belong to the attestor server; the broker keeps the others in a store of its own (traps 25).
A `SigningKey` signs and tells its public half; the private bytes have no way out of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from cryptography.hazmat.primitives.asymmetric import ec

from ca.errors import Conflict, Malformed, NotFound, Problem
from ca.runtime.secret import Reference
from ca.seal import Seal


class Purpose(StrEnum):
    """What a key may sign."""

    SPIFFE_ROOT = "spiffe-root"
    SPIFFE_X509 = "spiffe-x509"
    SPIFFE_JWT = "spiffe-jwt"
    SPIFFE_WIT = "spiffe-wit"
    SSH_CA = "ssh-ca"
    POSTGRES_CLIENT_CA = "postgres-client-ca"
    OAUTH_CLIENT = "oauth-client"
    TOKENS = "tokens"
    RECEIPTS = "receipts"


class KeyNotFound(NotFound):
    """The store has no key of that name."""

    code = "key-not-found"


class KeyExists(Conflict):
    """A key of that name is there already; nothing is ever overwritten."""

    code = "key-exists"


class KeyUnusable(Problem):
    """The key is there and must not be used: open to others, for another purpose, sealed otherwise, or damaged."""

    code = "key-unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a store's keys are: what its kind needs of this, the others ignore.

    `folder` and `seal` are for keys in files; `module` (a PKCS#11 library), `token` (its label) and `pin` for a token.
    """

    folder: Path = Path()
    seal: Seal | None = None
    module: Path | None = None
    token: str = ""
    pin: Reference | None = None


class SigningKey(Protocol):
    """A P-256 key that signs with SHA-256."""

    @property
    def name(self) -> str:
        """The name it is stored under."""

    @property
    def purpose(self) -> Purpose:
        """The one thing it is for."""

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The half that may be shown."""

    @property
    def key_id(self) -> bytes:
        """The subject key identifier of its public half (RFC 5280, 4.2.1.2, method 1)."""

    async def sign(self, data: bytes) -> bytes:
        """An ECDSA signature over `data`, as DER. Raises Unavailable when a token does not answer."""


class KeyStore(Protocol):
    """A place where private keys live."""

    @property
    def durable(self) -> bool:
        """Whether keys outlive this process."""

    @property
    def sealed(self) -> bool:
        """Whether what rests is unreadable to whoever copies it."""

    async def create(self, name: str, purpose: Purpose) -> SigningKey:
        """Make a new key; durable when this returns. Raises KeyExists, Malformed."""

    async def load(self, name: str, purpose: Purpose) -> SigningKey:
        """The key `name`. Raises KeyNotFound, KeyUnusable."""

    async def list(self) -> Sequence[str]:
        """The names of all keys, sorted."""

    async def delete(self, name: str) -> None:
        """Destroy the key `name`; that it is absent already is success."""


async def load_or_create(keys: KeyStore, name: str, purpose: Purpose) -> SigningKey:
    """The key `name`, made now if there is none; whoever else makes it at the same moment, it is one key.

    Raises:
        KeyUnusable, Malformed: see `KeyStore`.
    """
    try:
        return await keys.load(name, purpose)
    except KeyNotFound:
        try:
            return await keys.create(name, purpose)
        except KeyExists:
            return await keys.load(name, purpose)


@runtime_checkable
class Resealing(Protocol):
    """A store whose keys rest under a seal that may be replaced."""

    async def reseal(self) -> int:
        """Seal anew what rests under a former key; how many that were. Raises KeyUnusable, Unavailable."""


_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


def check_name(name: str) -> str:
    """Give `name` back when it can name a key everywhere, in a folder as on a token. Raises Malformed."""
    if not _NAME.fullmatch(name):
        raise Malformed(f"`{ascii(name[:80])[1:-1]}` can't name a key: expected up to 64 of `a-z`, `0-9` and inner `-`")
    return name
