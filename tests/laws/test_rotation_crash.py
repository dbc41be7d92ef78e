"""Law 2 for signing keys: what a process leaves that dies at any write of a rotation, the next start ends.

Every write to the store and every act on the key store is a place to die at. Each is tried, one after the other, in
each thing that can happen to an authority; then the process starts anew with the same store and the same keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ca.authority import Authority
from ca.keys.disk import DiskKeyStore
from ca.keys.protocol import Purpose, SigningKey
from ca.profiles.prepared import Kind
from ca.rotation import Rotation, open_authority
from ca.runtime.database import Database, Unit
from ca.runtime.sqlite import open_sqlite
from ca.spiffe import x509svid
from ca.spiffe.bundle import BundleSet
from ca.store import State
from fakes.authority import BEGIN, leaf, settings
from fakes.clock import ManualClock

Deed = Callable[[Authority, ManualClock], Awaitable[object]]
DAY = timedelta(days=1)
FIRST_TICK = 28
"""Acts of the first tick, which every other deed begins with too."""
MOST = 70


class Died(BaseException):
    """The process is gone; nothing catches it."""


class Fuse:
    """Burns down with each act; at its end the process dies, before the act or right after it."""

    def __init__(self, length: int, *, after: bool) -> None:
        self.left, self._after = length, after
        self.burnt = False

    async def act(self, deed: Awaitable[Any]) -> Any:
        """Do it, or die."""
        self.left -= 1
        if self.left >= 0:
            return await deed
        self.burnt = True
        if self._after and self.left == -1:
            await deed
        else:
            deed.close()  # type: ignore[attr-defined]
        raise Died


class FusedDatabase:
    """A real store."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        self._database, self._fuse = database, fuse

    async def read(self, unit: Unit[Any]) -> Any:
        return await self._database.read(unit)

    async def write(self, unit: Unit[Any], *, ending: bool = False) -> Any:
        return await self._fuse.act(self._database.write(unit, ending=ending))


class FusedKeyStore:
    """A real folder of keys."""

    durable = True
    sealed = True

    def __init__(self, store: DiskKeyStore, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    async def create(self, name: str, purpose: Purpose) -> SigningKey:
        made: SigningKey = await self._fuse.act(self._store.create(name, purpose))
        return made

    async def load(self, name: str, purpose: Purpose) -> SigningKey:
        return await self._store.load(name, purpose)

    async def list(self) -> Any:
        return await self._store.list()

    async def delete(self, name: str) -> None:
        await self._fuse.act(self._store.delete(name))


async def begin(_: Authority, __: ManualClock) -> None:
    """Nothing but the first tick."""


async def replace_root(authority: Authority, clock: ManualClock) -> None:
    """By an operator, at once."""
    await Rotation(authority).replace(Kind.ROOT, clock.now())


async def rotate_all(authority: Authority, clock: ManualClock) -> None:
    """By an operator, waiting, and the tick that ends the wait."""
    for kind in (Kind.ROOT, Kind.JWT, Kind.WIT):
        await Rotation(authority).rotate(kind, clock.now())
    await clock.advance(60)
    await Rotation(authority).tick(clock.now())


async def live_on(authority: Authority, clock: ManualClock) -> None:
    """Prepared, activated, retired by itself."""
    for _ in range(5):
        await clock.advance((8 * DAY).total_seconds())
        await Rotation(authority).tick(clock.now())


async def take_back(authority: Authority, clock: ManualClock) -> None:
    """Replaced, tainted, revoked, destroyed."""
    rotation, root = Rotation(authority), authority.issuer(clock.now()).key_id
    above = next(each.issuer_key_id for each in authority.believed if each.key_id == root)
    assert above is not None
    await rotation.replace(Kind.ROOT, clock.now())
    await rotation.taint(above, clock.now())
    await rotation.revoke(above, clock.now())


async def run(folder: Path, clock: ManualClock, deed: Deed, fuse: Fuse) -> None:
    """One life of a process, cut short or not."""
    keys = FusedKeyStore(DiskKeyStore(folder / "keys", None), fuse)
    async with open_sqlite(folder / "ca.db") as database:
        try:
            async with open_authority(settings(), FusedDatabase(database, fuse), keys, clock) as authority:
                await deed(authority, clock)
        except Died:
            pass


async def recovered(folder: Path, clock: ManualClock) -> None:
    """The next start: one of each kind signs, what it signs is believed, and no key is there that nobody knows."""
    keys = DiskKeyStore(folder / "keys", None)
    async with (
        open_sqlite(folder / "ca.db") as database,
        open_authority(settings(), database, keys, clock) as authority,
    ):
        await clock.advance(60)
        await Rotation(authority).tick(clock.now())
        active = [each.kind for each in authority.believed if each.state is State.ACTIVE]
        assert sorted(active) == sorted([Kind.ROOT, Kind.ISSUING, Kind.JWT, Kind.WIT])
        chain = await authority.sign_x509(leaf(authority, clock.now()))
        x509svid.verify(chain, BundleSet.of(authority.bundle(clock.now())), clock.now())
        assert sorted(await keys.list()) == sorted(each.key_name for each in authority.believed)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("deed", [begin, replace_root, rotate_all, live_on, take_back], ids=lambda deed: deed.__name__)
async def test_a_crash_at_any_write_is_recovered_from(tmp_path: Path, deed: Deed, *, after: bool) -> None:
    """Dying before an act and right after it, at every act there is."""
    for length in range(0 if deed is begin else FIRST_TICK - 4, MOST):
        folder, clock, fuse = tmp_path / str(length), ManualClock(BEGIN), Fuse(length, after=after)
        folder.mkdir()
        await run(folder, clock, deed, fuse)
        await recovered(folder, clock)
        if not fuse.burnt:
            assert length == FIRST_TICK if deed is begin else length > FIRST_TICK
            return
    raise AssertionError(f"there are more than {MOST} acts")
