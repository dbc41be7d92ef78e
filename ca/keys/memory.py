"""Keys that live as long as the process: for tests, and wherever no sealing key is configured.

`InMemoryKey` is also what other stores give once a key is read: the private half stays behind a name that nothing
outside this module spells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Never

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca.keys.protocol import KeyExists, KeyNotFound, KeyStore, KeyUnusable, Place, Purpose, SigningKey, check_name


def open_store(place: Place) -> KeyStore:  # noqa: ARG001 -- the signature every kind shares
    """A new, empty store."""
    return MemoryKeyStore()


class InMemoryKey:
    """A P-256 key held by this process; it can't be printed, pickled or copied."""

    __slots__ = ("__private", "_key_id", "_name", "_public", "_purpose")

    def __init__(self, name: str, purpose: Purpose, private: ec.EllipticCurvePrivateKey) -> None:
        self.__private = private
        self._name, self._purpose, self._public = name, purpose, private.public_key()
        self._key_id = x509.SubjectKeyIdentifier.from_public_key(self._public).digest

    @property
    def name(self) -> str:
        """The name it is stored under."""
        return self._name

    @property
    def purpose(self) -> Purpose:
        """The one thing it is for."""
        return self._purpose

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The half that may be shown."""
        return self._public

    @property
    def key_id(self) -> bytes:
        """The subject key identifier."""
        return self._key_id

    async def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, as DER: 22 µs, so it stays on the loop."""
        return self.__private.sign(data, ec.ECDSA(hashes.SHA256()))

    def __repr__(self) -> str:
        return f"InMemoryKey({self._name}, {self._purpose})"

    def __reduce__(self) -> Never:
        raise TypeError("a private key is not to be pickled or copied")


class MemoryKeyStore:
    """Keys in a dictionary."""

    durable = False
    sealed = True
    """Nothing rests, so there is nothing to read."""

    def __init__(self) -> None:
        self._keys: dict[str, InMemoryKey] = {}

    async def create(self, name: str, purpose: Purpose) -> SigningKey:
        """Make a new key. Raises KeyExists, Malformed."""
        if check_name(name) in self._keys:
            raise KeyExists(f"there is a key `{name}` already")
        self._keys[name] = InMemoryKey(name, purpose, ec.generate_private_key(ec.SECP256R1()))
        return self._keys[name]

    async def load(self, name: str, purpose: Purpose) -> SigningKey:
        """The key `name`. Raises KeyNotFound, KeyUnusable."""
        key = self._keys.get(check_name(name))
        if key is None:
            raise KeyNotFound(f"there is no key `{name}` in memory")
        if key.purpose is not purpose:
            raise KeyUnusable(f"the key `{name}` was made for `{key.purpose}`, not for `{purpose}`")
        return key

    async def list(self) -> Sequence[str]:
        """The names, sorted."""
        return sorted(self._keys)

    async def delete(self, name: str) -> None:
        """Forget the key `name`."""
        self._keys.pop(check_name(name), None)
