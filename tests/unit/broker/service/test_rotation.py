"""Rotation as operators ask for it, and as settings do."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.engines.protocol import Lent
from broker.lifecycle.configured import Configuration, open_configured
from broker.lifecycle.rotate import in_force
from broker.settings import TargetSettings
from ca.errors import Denied, Malformed, NotFound, Unavailable
from ca.runtime.clock import SystemClock
from ca.runtime.document import BadSettings
from ca.runtime.secret import Secret
from ca.runtime.settings import loads
from fakes.accounts import FakeAccounts
from fakes.clock import ManualClock
from fakes.commands import invoke
from fakes.doors import CLOCK, Doors, doors
from fakes.lent_account import SEAL

SAID: dict[str, Any] = {
    "engine": {
        "kind": "postgres",
        "host": "127.0.0.1",
        "database": "orders",
        "user": "broker",
        "password": "env:PGPASSWORD_OF_A_TEST",
    },
}


class Vault:
    """What rests."""

    def __init__(self, **values: str) -> None:
        self.values = {name: Secret(value) for name, value in values.items()}

    async def read(self, name: str) -> Secret | None:
        return self.values.get(name)

    async def newest(self, name: str) -> tuple[int, Secret] | None:
        value = await self.read(name)
        return None if value is None else (1, value)

    async def write(self, name: str, value: Secret) -> int:
        raise AssertionError("nothing is written")

    async def forget(self, name: str) -> None:
        raise AssertionError("nothing is forgotten")


def with_accounts(house: Doors) -> FakeAccounts:
    """A target whose password can be rotated, beside the other."""
    accounts = FakeAccounts(ManualClock())
    world = house.house.world
    world.engines["ledger"] = accounts  # type: ignore[index]
    world.targets["ledger"] = world.targets["orders-db"]  # type: ignore[index]
    return accounts


async def test_an_operator_rotates_and_goes_back(tmp_path: Path) -> None:
    """Over the socket and by the command; no answer holds a password."""
    async with doors(tmp_path, seal=SEAL) as house, house.as_operator() as broker:
        accounts = with_accounts(house)
        told = await broker.rotate_target("ledger")
        assert (told.account, told.times) == ("root", 1)
        environment = {"SOJOURN_BROKER_ADMIN": str(house.socket), "SOJOURN_STATE": str(tmp_path / "s")}
        result = await invoke("target", "rotate", "ledger", "--json", environment=environment)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["times"] == 2
        assert accounts.passwords["root"] not in result.output
        result = await invoke("target", "rotate", "ledger", "--forget", environment=environment)
        assert result.exit_code == 0, result.output
        assert accounts.ours == accounts.named


async def test_whoever_may_not_is_refused(tmp_path: Path) -> None:
    """An agent; and what is not there or can't is said."""
    async with doors(tmp_path, seal=SEAL) as house:
        accounts = with_accounts(house)
        async with house.as_agent() as agent:
            for call in (agent.rotate_target, agent.forget_rotation):
                with pytest.raises(Denied):
                    await call("ledger")
        async with house.as_operator() as broker:
            with pytest.raises(NotFound):
                await broker.rotate_target("nowhere")
        assert accounts.passwords["root"] == "named"
    (tmp_path / "again").mkdir()
    async with doors(tmp_path / "again") as house, house.as_operator() as broker:
        with_accounts(house)
        with pytest.raises(Unavailable, match=r"keys\.seal"):
            await broker.rotate_target("ledger")


def target(**more: Any) -> TargetSettings:
    """As from a file."""
    return loads(json.dumps({**SAID, **more}), "ledger.yaml", TargetSettings)


def test_a_schedule_is_read_and_has_a_least() -> None:
    """A minute: a target is not flooded by a slip of the pen."""
    assert target(rotate_every="30d").rotate_every == timedelta(days=30)
    assert target().rotate_every is None
    for wrong in ("1s", "0s", "often"):
        with pytest.raises(BadSettings, match="rotate_every"):
            target(rotate_every=wrong)


async def test_a_schedule_that_can_t_be_kept_changes_nothing() -> None:
    """A kind without the power, or no sealing key: said when the settings are read."""
    every, shelf = timedelta(days=1), loads('{"engine": {"kind": "static"}}', "shelf.yaml", TargetSettings)
    wanted = (
        (Configuration(engine=shelf.engine, roles={}, rotate_every=every), Vault(), "static"),
        (Configuration(engine=target().engine, roles={}, rotate_every=every), None, r"keys\.seal"),
    )
    for said, vault, words in wanted:
        async with open_configured(Lent(clock=SystemClock(), vault=vault)) as configured:
            with pytest.raises(Malformed, match=words):
                await configured.become({"ledger": said})
            assert configured.engines == {}
            assert configured.rotate_every == {}


async def test_an_account_that_two_targets_log_in_with_is_not_rotated() -> None:
    """The second would be locked out; also when it comes later, and says nothing of rotation itself."""
    rotated = Configuration(engine=target().engine, roles={}, rotate_every=timedelta(days=1))
    beside = target(engine={**SAID["engine"], "database": "another"}).engine
    async with open_configured(Lent(clock=SystemClock(), vault=Vault())) as configured:
        with pytest.raises(Malformed, match="`second` logs in with the same account"):
            await configured.become({"ledger": rotated, "second": Configuration(engine=beside, roles={})})
        assert configured.engines == {}


async def test_what_was_rotated_counts_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of what the settings name, for the account it is of; another user is another account."""
    monkeypatch.setenv("PGPASSWORD_OF_A_TEST", "named")
    vault = Vault(**{in_force("ledger", "broker"): "rotated"})
    async with open_configured(Lent(clock=CLOCK, vault=vault)) as configured:
        other = target(engine={**SAID["engine"], "user": "other"})
        await configured.become({
            "ledger": Configuration(engine=target().engine, roles={}, rotate_every=timedelta(days=1)),
            "second": Configuration(engine=other.engine, roles={}),
        })  # fmt: skip
        used = [configured.engines[name]._own.read().reveal() for name in ("ledger", "second")]  # type: ignore[attr-defined]
        assert used == ["rotated", "named"]
        assert configured.rotate_every == {"ledger": timedelta(days=1)}
