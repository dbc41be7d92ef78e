"""What must rest and is secret: sealed under a key outside the store, opened only where it is used.

A value has a name and versions, numbered from 1; a name's numbers are never used twice, unless everything of that name
was forgotten. The newest version that was not destroyed is the value. Name and number are sealed in: an envelope that
somebody copies under another name, or back over a newer version, does not open there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ca.errors import NotFound, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock, instant, micros
from ca.runtime.database import Database, Transaction
from ca.runtime.secret import Secret
from ca.seal import Seal, SealBroken, SealRing, sealed_by

_log = log.get(__name__)

_BATCH = 500
"""Values sealed anew in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a value, without the value; `key_name` tells the key it is sealed under."""

    number: int
    made_at: datetime
    destroyed_at: datetime | None
    key_name: str | None


async def add(tx: Transaction, seal: Seal, name: str, value: Secret, now: datetime) -> int:
    """Write the next version of `name`; its number."""
    row = await tx.fetchrow("SELECT MAX(version) AS newest FROM sealed WHERE name = $1", name)
    number = 1 + ((row and row["newest"]) or 0)
    await tx.execute(
        "INSERT INTO sealed (name, version, envelope, made_at) VALUES ($1, $2, $3, $4)",
        name,
        number,
        seal.seal(value.reveal().encode(), _context(name, number)),
        micros(now),
    )
    return number


async def newest(tx: Transaction, seal: Seal, name: str) -> tuple[int, Secret] | None:
    """The newest version that was not destroyed, with its number. Raises SealBroken."""
    row = await tx.fetchrow(
        "SELECT version, envelope FROM sealed WHERE name = $1 AND envelope IS NOT NULL ORDER BY version DESC LIMIT 1",
        name,
    )
    return None if row is None else (row["version"], _opened(seal, name, row["version"], row["envelope"]))


async def versions(tx: Transaction, name: str) -> Sequence[Version]:
    """Every version of a value, the newest first."""
    rows = await tx.fetch("SELECT * FROM sealed WHERE name = $1 ORDER BY version DESC", name)
    return [
        Version(
            number=row["version"],
            made_at=instant(row["made_at"]),
            destroyed_at=None if row["destroyed_at"] is None else instant(row["destroyed_at"]),
            key_name=None if row["envelope"] is None else sealed_by(row["envelope"]),
        )
        for row in rows
    ]


async def names(tx: Transaction, prefix: str) -> Sequence[str]:
    """The names that begin with `prefix`, sorted."""
    rows = await tx.fetch(
        "SELECT DISTINCT name FROM sealed WHERE substr(name, 1, $2) = $1 ORDER BY name", prefix, len(prefix)
    )
    return [row["name"] for row in rows]


async def destroy(tx: Transaction, name: str, number: int, now: datetime) -> None:
    """Let one version be no more; that it was is kept. Twice is once. Raises NotFound."""
    row = await tx.fetchrow("SELECT version FROM sealed WHERE name = $1 AND version = $2", name, number)
    if row is None:
        raise NotFound(f"`{name}` has no version {number}")
    await tx.execute(
        "UPDATE sealed SET envelope = NULL, destroyed_at = $3"
        " WHERE name = $1 AND version = $2 AND envelope IS NOT NULL",
        name,
        number,
        micros(now),
    )


async def forget(tx: Transaction, name: str) -> None:
    """Remove every version."""
    await tx.execute("DELETE FROM sealed WHERE name = $1", name)


async def reseal(tx: Transaction, seal: Seal, after: tuple[str, int]) -> tuple[tuple[str, int] | None, int]:
    """Seal anew what rests under another key than the newest, a batch of it that begins behind `after`.

    Answers where it ended, None at the end of all, and how many that were. A value that no key here opens stays as it
    is, and is told: whoever asks for it hears of it.
    """
    rows = await tx.fetch(
        "SELECT name, version, envelope FROM sealed WHERE envelope IS NOT NULL"
        " AND (name > $1 OR (name = $1 AND version > $2)) ORDER BY name, version LIMIT $3",
        *after,
        _BATCH,
    )
    count = 0
    for row in rows:
        name, number = row["name"], row["version"]
        if sealed_by(row["envelope"]) == seal.key_name:
            continue
        try:
            value = _opened(seal, name, number, row["envelope"])
        except SealBroken as problem:
            _log.warning("a value could not be sealed anew", error=problem)
            continue
        count += await tx.execute(
            "UPDATE sealed SET envelope = $3 WHERE name = $1 AND version = $2 AND envelope IS NOT NULL",
            name,
            number,
            seal.seal(value.reveal().encode(), _context(name, number)),
        )
    return ((rows[-1]["name"], rows[-1]["version"]) if len(rows) == _BATCH else None), count


@dataclass(frozen=True, slots=True)
class Sealed:
    """The vault engines are lent, over this process's store (`broker.engines.protocol.Vault`)."""

    database: Database
    seal: Seal
    clock: Clock

    async def read(self, name: str) -> Secret | None:
        """The newest version of one value; None when there is none. Raises SealBroken, Unavailable."""
        found = await self.newest(name)
        return None if found is None else found[1]

    async def newest(self, name: str) -> tuple[int, Secret] | None:
        """The same with its number."""
        return await self.database.read(lambda tx: newest(tx, self.seal, name))

    async def write(self, name: str, value: Secret) -> int:
        """Write a further version, durable when this answers; its number. Raises Unavailable."""
        now = self.clock.now()
        return await self.database.write(lambda tx: add(tx, self.seal, name, value, now), ending=True)

    async def forget(self, name: str) -> None:
        """Remove every version of it. Raises Unavailable."""
        await self.database.write(lambda tx: forget(tx, name), ending=True)


async def open_sealed(database: Database, seal: Seal, clock: Clock) -> Sealed:
    """The vault. Where former keys are named, what rests under them is sealed anew first, unless the store is full."""
    if isinstance(seal, SealRing):
        try:
            count = await _reseal_all(database, seal)
        except Unavailable as problem:
            _log.warning("values under a former sealing key could not be sealed anew", error=problem)
        else:
            _log.info("values were sealed anew", count=count, key=seal.key_name)
    return Sealed(database, seal, clock)


async def _reseal_all(database: Database, seal: Seal) -> int:
    after: tuple[str, int] | None = ("", 0)
    total = 0
    while after is not None:
        behind = after
        after, count = await database.write(lambda tx, behind=behind: reseal(tx, seal, behind))  # type: ignore[misc]
        total += count
    return total


def _opened(seal: Seal, name: str, number: int, envelope: bytes) -> Secret:
    try:
        return Secret(seal.open(bytes(envelope), _context(name, number)).decode())
    except SealBroken as error:
        raise SealBroken(f"the value `{name}`, version {number}, can't be opened: {error}") from error


def _context(name: str, number: int) -> bytes:
    return b"\x00".join((b"sojourn value", name.encode(), str(number).encode()))
