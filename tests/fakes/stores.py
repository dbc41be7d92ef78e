"""Every driver of `Database`, and the tables its contract is tried on."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from ca.runtime.database import Database, Transaction, Unit, open_database
from ca.runtime.sqlite import open_sqlite
from fakes.wire_tap import WireTap, tapped
from servers.postgres import postgres


async def postgres_address(folder: Path) -> str:
    """The address of the store that belongs to `folder`: a database of its own on the PostgreSQL of this run."""
    async with postgres() as server:
        return await server.store(hashlib.sha256(bytes(folder)).hexdigest()[:16])


@asynccontextmanager
async def _on_postgres(folder: Path) -> AsyncIterator[Database]:
    async with open_database(await postgres_address(folder)) as database:
        yield database


DRIVERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Database]]] = {
    "postgres": _on_postgres,
    "sqlite": lambda folder: open_sqlite(folder / "store.db"),
}
CHOSEN = ["sqlite"]
"""What a fake opens when it is told nothing: changed by `on_every_store` for the length of a test."""


def chosen(path: Path) -> AbstractAsyncContextManager[Database]:
    """The store at `path`, or the one that belongs to it elsewhere, in the kind that is chosen."""
    return open_sqlite(path) if CHOSEN[-1] == "sqlite" else DRIVERS[CHOSEN[-1]](path)


@pytest.fixture(params=sorted(DRIVERS))
def on_every_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """For whole files of tests: `pytestmark = pytest.mark.usefixtures("on_every_store")`."""
    CHOSEN.append(request.param)
    yield
    CHOSEN.pop()


async def on_disk(folder: Path) -> dict[str, bytes]:
    """Every file of the store that belongs to `folder`, with what is still in its log only."""
    if CHOSEN[-1] == "sqlite":
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    address = await postgres_address(folder / "broker.db")
    await as_superuser(address, "CHECKPOINT")
    async with postgres() as server:
        connection = await server.connect(database_of(address))
        try:
            oid = await connection.fetchval("SELECT oid::text FROM pg_database WHERE datname = current_database()")
        finally:
            await connection.close()
        data = server.folder / "data"
        files = [*(data / "base" / oid).iterdir(), *(path for path in (data / "pg_wal").iterdir() if path.is_file())]
        return {f"broker.db/{path.name}": path.read_bytes() for path in files}


Opener = Callable[[], AbstractAsyncContextManager[Database]]


class Elsewhere:
    """Something to await that is no statement: it gives the others a turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def create(tx: Transaction) -> None:
    """Two tables, one referring to the other."""
    await tx.execute("CREATE TABLE item (id BIGINT PRIMARY KEY, a TEXT, b BYTEA, n BIGINT NOT NULL DEFAULT 0)")
    await tx.execute("CREATE TABLE part (id BIGINT PRIMARY KEY, item BIGINT NOT NULL REFERENCES item (id))")


def insert(number: int) -> Unit[int]:
    """A unit that adds one item."""

    async def unit(tx: Transaction) -> int:
        return await tx.execute("INSERT INTO item (id) VALUES ($1)", number)

    return unit


async def ids(database: Database) -> list[int]:
    """The items that are there."""

    async def unit(tx: Transaction) -> list[int]:
        return [row["id"] for row in await tx.fetch("SELECT id FROM item ORDER BY id")]

    return await database.read(unit)


async def as_superuser(address: str, *statements: str) -> None:
    """Run statements in the database of a store on the PostgreSQL of this run."""
    async with postgres() as server:
        connection = await server.connect(database_of(address))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


def database_of(address: str) -> str:
    """Its name; the role that owns it has the same."""
    return address.rpartition("?")[0].rpartition("/")[2]


@asynccontextmanager
async def tapped_store(address: str) -> AsyncIterator[tuple[Database, WireTap]]:
    """A store with two tables, and a man in the middle of the way to it."""
    async with (
        postgres() as server,
        tapped(server.host, server.port) as tap,
        open_database(through(address, server.port, tap)) as store,
    ):
        await store.write(create)
        yield store, tap


def through(address: str, port: int, tap: WireTap) -> str:
    """The address by way of the tap."""
    return address.replace(f":{port}/", f":{tap.address[1]}/")
