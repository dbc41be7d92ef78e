"""The broker's own private keys in its own store, sealed: every broker over that store has the same CAs.

A `ca.keys` store like those in files or on a token. A key rests as a sealed value, bound to its name (`sealed.py`),
with its purpose inside; it is written once and never again. Without the sealing key the store holds nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.store import sealed
from ca.keys.memory import InMemoryKey
from ca.keys.protocol import KeyExists, KeyNotFound, KeyUnusable, Purpose, SigningKey, check_name
from ca.runtime.clock import Clock
from ca.runtime.database import Database, Duplicate, Transaction
from ca.runtime.secret import Secret
from ca.seal import Seal, SealBroken

_PREFIX = "key/"


@dataclass(frozen=True, slots=True)
class KeysInStore:
    """See the module."""

    database: Database
    seal: Seal
    clock: Clock

    @property
    def durable(self) -> bool:
        """They outlive the process."""
        return True

    @property
    def sealed(self) -> bool:
        """Always."""
        return True

    async def create(self, name: str, purpose: Purpose) -> SigningKey:
        """Make a new key; durable when this returns. Of several brokers one makes it. Raises KeyExists, Malformed."""
        private, now = ec.generate_private_key(ec.SECP256R1()), self.clock.now()
        content, where = _written(purpose, private), _PREFIX + check_name(name)

        async def write(tx: Transaction) -> None:
            if await sealed.versions(tx, where):
                raise KeyExists(f"there is a key `{name}` already")
            await sealed.add(tx, self.seal, where, content, now)

        try:
            await self.database.write(write)
        except Duplicate as error:
            raise KeyExists(f"there is a key `{name}` already") from error
        return InMemoryKey(name, purpose, private)

    async def load(self, name: str, purpose: Purpose) -> SigningKey:
        """The key `name`. Raises KeyNotFound, KeyUnusable."""
        where = _PREFIX + check_name(name)
        try:
            found = await self.database.read(lambda tx: sealed.newest(tx, self.seal, where))
        except SealBroken as error:
            raise KeyUnusable(f"can't unseal the key `{name}`: {error}") from error
        if found is None:
            raise KeyNotFound(f"there is no key `{name}` in the store")
        return InMemoryKey(name, purpose, _read(name, purpose, found[1]))

    async def list(self) -> Sequence[str]:
        """The names, sorted."""
        found = await self.database.read(lambda tx: sealed.names(tx, _PREFIX))
        return [name.removeprefix(_PREFIX) for name in found]

    async def delete(self, name: str) -> None:
        """Destroy the key `name`; that it is absent already is success."""
        where = _PREFIX + check_name(name)
        await self.database.write(lambda tx: sealed.forget(tx, where), ending=True)


def _written(purpose: Purpose, private: ec.EllipticCurvePrivateKey) -> Secret:
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Secret(json.dumps({"purpose": str(purpose), "key": base64.b64encode(der).decode()}))


def _read(name: str, purpose: Purpose, content: Secret) -> ec.EllipticCurvePrivateKey:
    """What was written; nothing of it stands in an error, nor in what caused it."""
    try:
        document = json.loads(content.reveal())
        made_for, der = str(document["purpose"]), base64.b64decode(document["key"], validate=True)
        private = serialization.load_der_private_key(der, password=None)
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise KeyUnusable(f"the key `{name}` in the store is damaged") from None
    if made_for != purpose:
        raise KeyUnusable(f"the key `{name}` was made for `{made_for}`, not for `{purpose}`")
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise KeyUnusable(f"the key `{name}` in the store is not on P-256")
    return private
