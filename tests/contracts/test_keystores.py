"""What every key store must do, tried on each kind in the table."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.store.keys import KeysInStore
from ca.errors import Malformed
from ca.keys import KEY_STORES, open_key_store
from ca.keys.protocol import KeyExists, KeyNotFound, KeyStore, KeyUnusable, Place, Purpose, load_or_create
from ca.runtime.clock import SystemClock
from ca.runtime.database import Database
from ca.runtime.sqlite import open_sqlite
from ca.seal import AesSeal
from fakes.world import settle
from servers import softhsm

Opener = Callable[[], KeyStore]
SEAL = AesSeal(bytes(range(32)))


KINDS = [*((kind, seal) for kind in KEY_STORES for seal in (None, SEAL)), ("database", SEAL)]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A broker's store."""
    async with open_sqlite(tmp_path / "broker.db") as opened:
        await settle(opened)
        yield opened


@pytest.fixture(params=KINDS, ids=str)
def opener(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Opener:
    """Opens the same place again at each call."""
    kind, seal = request.param
    if kind == "database":
        return lambda: KeysInStore(database, SEAL, SystemClock())
    place = replace(softhsm.place(), folder=tmp_path / "keys", seal=seal)
    if kind == "pkcs11":
        softhsm.sweep()
    return lambda: open_key_store(kind, place)


async def test_what_a_key_signs_its_public_half_verifies(opener: Opener) -> None:
    """A signature is ECDSA on P-256 with SHA-256, in DER."""
    key = await opener().create("tokens-1", Purpose.TOKENS)
    key.public_key.verify(await key.sign(b"words"), b"words", ec.ECDSA(hashes.SHA256()))
    assert isinstance(key.public_key.curve, ec.SECP256R1)
    assert len(key.key_id) == 20


async def test_a_loaded_key_is_the_one_that_was_created(opener: Opener) -> None:
    """Name, purpose, identifier and public half are the same."""
    store = opener()
    made = await store.create("root-1", Purpose.SPIFFE_ROOT)
    found = await store.load("root-1", Purpose.SPIFFE_ROOT)
    assert (found.name, found.purpose, found.key_id) == (made.name, made.purpose, made.key_id)
    made.public_key.verify(await found.sign(b"x"), b"x", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("other", [purpose for purpose in Purpose if purpose is not Purpose.SPIFFE_ROOT])
async def test_a_key_loads_for_its_own_purpose_only(opener: Opener, other: Purpose) -> None:
    """A root's key can't be had to sign anything else."""
    store = opener()
    await store.create("root-1", Purpose.SPIFFE_ROOT)
    with pytest.raises(KeyUnusable, match="root-1"):
        await store.load("root-1", other)


async def test_no_key_is_ever_overwritten(opener: Opener) -> None:
    """A second key of a name is refused and the first one stays."""
    store = opener()
    first = await store.create("k", Purpose.RECEIPTS)
    with pytest.raises(KeyExists):
        await store.create("k", Purpose.RECEIPTS)
    assert (await store.load("k", Purpose.RECEIPTS)).key_id == first.key_id


async def test_names_are_listed_in_order(opener: Opener) -> None:
    """The list is sorted and complete."""
    store = opener()
    for name in ("b", "a", "c-1"):
        await store.create(name, Purpose.SSH_CA)
    assert list(await store.list()) == ["a", "b", "c-1"]


async def test_deleting_is_repeatable_and_final(opener: Opener) -> None:
    """A deleted key is gone; that it was absent is success."""
    store = opener()
    await store.create("k", Purpose.TOKENS)
    await store.delete("k")
    await store.delete("k")
    assert list(await store.list()) == []
    with pytest.raises(KeyNotFound):
        await store.load("k", Purpose.TOKENS)


async def test_however_many_want_a_key_at_once_it_is_one(opener: Opener) -> None:
    """Each through a store of its own over the same place, as several brokers are; whoever is late loads it."""
    stores = [opener() for _ in range(3)]
    if not stores[0].durable:  # in memory each store is a place of its own
        stores = stores[:1] * 3
    keys = await asyncio.gather(*(load_or_create(store, "k", Purpose.TOKENS) for store in stores))
    assert len({key.key_id for key in keys}) == 1
    assert (await load_or_create(stores[0], "k", Purpose.TOKENS)).key_id == keys[0].key_id


@pytest.mark.parametrize("name", ["", "../k", "a/b", "K", "a b", "-a", "a-", "a\n", "a.key", "ä", "a" * 65, "\x00"])
async def test_a_name_that_is_no_name_is_refused(opener: Opener, name: str) -> None:
    """No name leaves the folder, and none differs only in case."""
    store = opener()
    for call in (store.create(name, Purpose.TOKENS), store.load(name, Purpose.TOKENS), store.delete(name)):
        with pytest.raises(Malformed):
            await call


async def test_a_key_shows_nothing_of_itself(opener: Opener) -> None:
    """It can't be pickled, copied or printed with its private half."""
    key = await opener().create("k", Purpose.TOKENS)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            take(key)
    assert repr(key) in {"InMemoryKey(k, tokens)", "TokenKey(k, tokens)"}


async def test_what_is_durable_is_there_after_a_restart(opener: Opener) -> None:
    """A store says of itself whether its keys outlive it, and it is true."""
    first = opener()
    key = await first.create("k", Purpose.TOKENS)
    second = opener()
    assert list(await second.list()) == (["k"] if first.durable else [])
    if second.durable:
        assert (await second.load("k", Purpose.TOKENS)).key_id == key.key_id


def test_an_unknown_kind_is_refused_by_name(tmp_path: Path) -> None:
    """The sentence says which kinds there are."""
    with pytest.raises(
        Malformed, match="`floppy` is not a kind of key store: expected one of `memory`, `disk`, `pkcs11`"
    ):
        open_key_store("floppy", Place(folder=tmp_path))
