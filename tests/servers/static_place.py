"""A shelf of values, and a lent account, as the contract of engines sees them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.engines.protocol import Issued, Lent
from broker.engines.static import Settings, open_engine
from broker.model.role import Role
from broker.store.sealed import Sealed
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.secret import Secret
from ca.runtime.sqlite import open_sqlite
from ca.seal import AesSeal
from fakes.accounts import FakeAccounts, Login
from fakes.world import role, settle
from servers.place import new_prefix
from servers.postgres_place import PostgresPlace, postgres_place

VALUE = "a value somebody gave"


@dataclass
class Told:
    """Somebody who knows the value; nothing is opened by it."""

    async def answers(self) -> bool:
        return True


@dataclass
class ShelfPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str

    async def login(self, issued: Issued) -> Told | None:
        return Told() if issued.secret["value"].matches(VALUE) else None


@dataclass
class AccountPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    accounts: FakeAccounts

    async def login(self, issued: Issued) -> Login | None:
        return self.accounts.log_in(str(issued.fields["username"]), issued.secret["password"].reveal())


def account_role(target: str = "orders-db", account: str = "legacy", **more: Any) -> Role:
    """A role that lends an account."""
    settings = {"check_out": {"target": target, "account": account}, **more}
    return role(target="shelf", name="legacy", engine="static", settings=settings)


@asynccontextmanager
async def shelf_place() -> AsyncIterator[ShelfPlace]:
    """With one value on it."""
    clock, the_role = SystemClock(), role(target="shelf", name="key", engine="static")
    with tempfile.TemporaryDirectory() as folder:
        async with open_sqlite(Path(folder) / "store.db") as database:
            await settle(database)
            vault = Sealed(database, AesSeal(bytes(32)), clock)
            await vault.write("value/shelf/key", Secret(VALUE))
            async with open_engine(Settings(kind="static"), Lent(clock=clock, vault=vault)) as engine:
                yield ShelfPlace(engine, the_role, clock, new_prefix())


@asynccontextmanager
async def account_place() -> AsyncIterator[AccountPlace]:
    """An account of a target in memory."""
    clock = SystemClock()
    accounts = FakeAccounts(clock)
    lent = Lent(clock=clock, rotating=lambda _: accounts)
    async with open_engine(Settings(kind="static"), lent) as engine:
        yield AccountPlace(engine, account_role(), clock, new_prefix(), accounts)


@asynccontextmanager
async def postgres_account_place() -> AsyncIterator[PostgresPlace]:
    """An account of a real PostgreSQL, lent through its engine, whose admin is no superuser."""
    async with postgres_place() as place:
        account = f"legacy_{place.room.admin}"
        owner = await place.server.connect()
        await owner.execute(f"CREATE ROLE {account} LOGIN IN ROLE {place.room.groups[0]}")
        await owner.execute(f"GRANT {account} TO {place.room.admin} WITH ADMIN OPTION")
        beneath = place.engine
        lent = Lent(clock=place.clock, rotating=lambda _: beneath)
        try:
            async with open_engine(Settings(kind="static"), lent) as engine:
                place.engine, place.role = engine, account_role(account=account)
                yield place
        finally:
            for visit in place.visits:
                visit.connection.terminate()
            await owner.execute(f"DROP ROLE {account}")
            await owner.close()
