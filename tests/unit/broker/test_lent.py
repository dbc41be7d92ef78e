"""What a broker's engines are lent: keys of its own, a vault, and tokens that say who it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from attestor.client.workload_api import WorkloadApiClient
from broker.engines.protocol import Lent
from broker.serve import serve
from broker.settings import BrokerSettings, Keys, ListenSettings
from ca.keys.protocol import Purpose
from ca.runtime.document import BadSettings
from ca.runtime.process import Readiness
from ca.runtime.secret import Reference, Secret
from ca.runtime.settings import loads
from ca.spiffe import jwtsvid
from fakes import identity_side
from fakes.identity_side import CLOCK
from servers import softhsm


@asynccontextmanager
async def lent(folder: Path, keys: Keys) -> AsyncIterator[tuple[Lent, str]]:
    """What a broker with these keys lends, and where its Workload API is."""
    async with asyncio.timeout(60), identity_side.both(folder) as (_, node_agent):
        settings = BrokerSettings(
            listen=ListenSettings(port=0),
            admin_socket=folder / "broker.sock",
            workload_api=identity_side.address(node_agent),
            database=f"sqlite:{folder / 'broker.db'}",
            keys=keys,
        )
        async with serve(settings, CLOCK, Readiness()) as broker:
            yield broker.configured.lent, settings.workload_api


def sealing_key(folder: Path, name: str = "seal") -> Reference:
    """A file with a fresh one."""
    (folder / name).write_text(secrets.token_hex(32))
    (folder / name).chmod(0o600)
    return Reference("file", str(folder / name))


async def test_without_a_seal_nothing_rests(tmp_path: Path) -> None:
    """Keys are in memory, and there is no vault."""
    async with lent(tmp_path, Keys()) as (given, _):
        assert given.vault is None
        assert given.keys is not None
        assert not given.keys.durable


async def test_keys_and_values_outlive_the_process_and_their_sealing_key(tmp_path: Path) -> None:
    """Sealed anew at the start under the key that replaces the first; then the first is not needed any more."""
    first, second = sealing_key(tmp_path), sealing_key(tmp_path, "second")
    place = {"store": "disk", "folder": tmp_path / "keys"}
    async with lent(tmp_path, Keys.model_validate({**place, "seal": first})) as (given, _):
        assert given.vault is not None
        assert given.keys is not None
        await given.vault.write("a", Secret("hunter-1"))
        made = await given.keys.create("ssh-ca", Purpose.SSH_CA)
    replaced = Keys.model_validate({**place, "seal": second, "former_seals": (first,)})
    for keys in (replaced, Keys.model_validate({**place, "seal": second})):
        async with lent(tmp_path, keys) as (given, _):
            assert given.vault is not None
            assert given.keys is not None
            assert await given.vault.read("a") == Secret("hunter-1")
            assert (await given.keys.load("ssh-ca", Purpose.SSH_CA)).key_id == made.key_id


async def test_keys_may_rest_in_the_store_itself(tmp_path: Path) -> None:
    """Sealed; the next start has the same, also under another sealing key."""
    first, second = sealing_key(tmp_path), sealing_key(tmp_path, "second")
    async with lent(tmp_path, Keys(store="database", seal=first)) as (given, _):
        assert given.keys is not None
        made = await given.keys.create("ssh-ca", Purpose.SSH_CA)
    async with lent(tmp_path, Keys(store="database", seal=second, former_seals=(first,))) as (given, _):
        assert given.keys is not None
        assert (await given.keys.load("ssh-ca", Purpose.SSH_CA)).key_id == made.key_id


async def test_values_are_sealed_by_a_token(tmp_path: Path) -> None:
    """Keys on the token, and values under a secret there: who copies the disk has nothing."""
    place = softhsm.place()
    softhsm.sweep()
    softhsm.secret("seal", SENSITIVE=True, EXTRACTABLE=False)
    said = {"store": "pkcs11", "module": place.module, "token": place.token, "pin": place.pin, "seal_label": "seal"}
    for again in (False, True):
        async with lent(tmp_path, Keys.model_validate(said)) as (given, _):
            assert given.vault is not None
            if not again:
                await given.vault.write("a", Secret("hunter-1"))
            assert await given.vault.read("a") == Secret("hunter-1")
    softhsm.sweep()


async def test_tokens_say_who_the_broker_is(tmp_path: Path) -> None:
    """To one audience, and printed nowhere."""
    async with lent(tmp_path, Keys()) as (given, address):
        assert given.tokens is not None
        token = await given.tokens.token("https://sts.example.org")
        async with WorkloadApiClient(address) as api:
            bundles = await api.fetch_jwt_bundles()
        proven = jwtsvid.verify(token.reveal(), "https://sts.example.org", bundles, CLOCK.now())
        assert proven.audience == ("https://sts.example.org",)
        assert token.reveal() not in repr(given)


@pytest.mark.parametrize(
    "text",
    [
        "{store: disk, folder: /k}",
        '{store: disk, seal: "file:/s"}',
        '{seal: "file:/s", seal_label: s}',
        "{seal_label: s}",
        "{store: pkcs11}",
        "{store: database}",
        '{former_seals: ["file:/s"]}',
        "{seal: hunter2}",
    ],
)
def test_keys_that_are_not_said_whole_are_refused(text: str) -> None:
    """And a key never stands in the settings themselves."""
    with pytest.raises(BadSettings) as caught:
        loads(text, "keys.yaml", Keys)
    assert "hunter2" not in str(caught.value)
