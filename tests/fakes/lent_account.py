"""A world with a shelf of values and an account of another target that is lent through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from broker.engines.protocol import Lent
from broker.engines.static import Static
from broker.lifecycle.borrowed import Borrowed
from broker.lifecycle.obtain import HandOver
from broker.store.sealed import Sealed
from broker.targets.target import open_target
from ca.seal import AesSeal
from fakes.accounts import FakeAccounts, Login
from fakes.clock import ManualClock
from fakes.world import House, living, role
from servers.static_place import account_role

SEAL = AesSeal(bytes(32))


@dataclass
class Shelf:
    """The house, what it lends, and the target beneath."""

    house: House
    accounts: FakeAccounts
    vault: Sealed

    def log_in(self, handed: HandOver) -> Login | None:
        """With what was handed over."""
        issued = handed.issued
        return self.accounts.log_in(str(issued.fields["username"]), issued.secret["password"].reveal())


@asynccontextmanager
async def shelf(folder: Path, *, the_role: Any = None, **more: Any) -> AsyncIterator[Shelf]:
    """Of one role; entering it again with the same folder and accounts is a restart."""
    clock = more.pop("clock", None) or ManualClock()
    accounts = more.pop("accounts", None) or FakeAccounts(clock)
    engines: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    lent = Lent(clock=clock, rotating=partial(Borrowed, engines, targets))
    engine = Static(lent)
    async with (
        open_target("orders-db", clock) as beneath,
        living(folder, clock=clock, engine=engine, the_role=the_role or account_role(), seal=SEAL, **more) as house,
    ):
        vault = Sealed(house.world.database, SEAL, clock)
        engine._lent = Lent(clock=clock, vault=vault, rotating=lent.rotating)
        house.world.engines["orders-db"] = accounts  # type: ignore[index]
        house.world.targets["orders-db"] = beneath  # type: ignore[index]
        engines.update(house.world.engines)
        targets.update(house.world.targets)
        yield Shelf(house, accounts, vault)


def value_role(name: str = "key", **settings: Any) -> Any:
    """A role that hands a value over."""
    return role(target="shelf", name=name, engine="static", settings=settings)
