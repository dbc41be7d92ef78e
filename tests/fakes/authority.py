"""An authority over a real store, at a time the test chooses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from ca.authority import Authority, AuthoritySettings
from ca.keys.protocol import KeyStore, Purpose, SigningKey
from ca.profiles import jwt, x509
from ca.profiles.prepared import Prepared
from ca.rotation import open_authority
from ca.runtime.database import Database, Unit
from ca.runtime.sqlite import open_sqlite
from ca.spiffe.id import TrustDomain
from fakes.clock import ManualClock

BEGIN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DOMAIN = TrustDomain.parse("example.org")
INSTANCE = "0123456789abcdef" * 2
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()


def settings(**changes: Any) -> AuthoritySettings:
    """The defaults, in `example.org`."""
    return AuthoritySettings(**{"trust_domain": DOMAIN, **changes})


@asynccontextmanager
async def opened(
    folder: Path, key_store: KeyStore, clock: ManualClock, chosen: AuthoritySettings | None = None
) -> AsyncIterator[Authority]:
    """An authority on the store in `folder`."""
    async with (
        open_sqlite(folder / "ca.db") as database,
        open_authority(chosen or settings(), database, key_store, clock) as authority,
    ):
        yield authority


def leaf(authority: Authority, now: datetime, **changes: Any) -> Prepared:
    """An honest leaf, ready to be signed."""
    honest = {"id": DOMAIN.member("/agent"), "public_key": KEY, "instance": INSTANCE, "ttl": timedelta(hours=1)}
    return x509.prepare(x509.LeafRequest(**{**honest, **changes}), authority.issuer(now), now)


def token(authority: Authority, now: datetime, **changes: Any) -> Prepared:
    """An honest token, ready to be signed."""
    honest = {
        "id": DOMAIN.member("/agent"),
        "audience": ("server",),
        "instance": INSTANCE,
        "ttl": timedelta(minutes=5),
    }
    return jwt.prepare(jwt.JwtRequest(**{**honest, **changes}), authority.jwt_issuer(now), now)


class WatchedDatabase:
    """A real store that counts its writes and refuses them when told to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writes = 0
        self.failure: Exception | None = None

    async def read(self, unit: Unit[Any]) -> Any:
        return await self._database.read(unit)

    async def write(self, unit: Unit[Any], *, ending: bool = False) -> Any:
        if self.failure is not None:
            raise self.failure
        self.writes += 1
        return await self._database.write(unit, ending=ending)


class WatchedKey:
    """A real key that notes what it signs, and fails when told to."""

    def __init__(self, key: SigningKey, store: WatchedKeyStore) -> None:
        self._key, self._store = key, store
        self.name, self.purpose = key.name, key.purpose
        self.public_key, self.key_id = key.public_key, key.key_id

    async def sign(self, data: bytes) -> bytes:
        if self._store.sign_failure is not None:
            raise self._store.sign_failure
        self._store.signed.append((self.purpose, data))
        return await self._key.sign(data)


class WatchedKeyStore:
    """A real store whose keys are watched."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self.durable, self.sealed = store.durable, store.sealed
        self.signed: list[tuple[Purpose, bytes]] = []
        self.sign_failure: Exception | None = None

    async def create(self, name: str, purpose: Purpose) -> SigningKey:
        return WatchedKey(await self._store.create(name, purpose), self)

    async def load(self, name: str, purpose: Purpose) -> SigningKey:
        return WatchedKey(await self._store.load(name, purpose), self)

    async def list(self) -> Any:
        return await self._store.list()

    async def delete(self, name: str) -> None:
        await self._store.delete(name)
