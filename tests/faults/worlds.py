"""Worlds in which brokers are killed by chance, one life after the other: each start recovers from the death before.

A world is a store and a target. Its lives are drawn from its seed: what kills each, at which passing of which point, or
after how long from outside. Every life recovers, stops, and is looked at by the oracle: that look is the verdict on
whoever died since the look before. After `LIVES` of them a minute passes, everything is ended, and nothing may be left.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same seed is the same world
from typing import Any

from faults.case import Case
from faults.chance import SETTLED
from faults.eyes.store import FileStore, SharedStore
from faults.ground import Ground
from faults.nursery import Nursery, fired, why
from faults.oracle import Outside, look
from faults.record import OK, OUTSIDE, Kill, commit
from faults.synced import lose
from house.failpoints import all_points
from servers.postgres import Server

LIVES = 24
Tally = Counter[tuple[str, str, str]]
"""How often each point was aimed at, by engine and store."""
_COLD = 0.05
_OUTAGE = 0.03
_QUICK = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 2**28 else "/tmp"
"""Where worlds stand: a killed process loses nothing that it wrote, on whatever kind of disk."""
_RESERVE = frozenset({"broker.db.reserve"})


@dataclass(frozen=True, slots=True)
class Plan:
    """How one life is to end: by a point, armed at once or when it has settled, or from outside after a while."""

    seed: int
    at_once: str = ""
    later: str = ""
    outside: float | None = None
    settling: bool = False
    """Whether the kill from outside comes while it recovers."""


@dataclass
class World:
    """One store, one target, and those who live there; `shared` is a server for stores, where they are no files."""

    nursery: Nursery
    ground: Ground
    shared: Server | None
    engine: str
    seed: int
    tally: Tally
    """The rarest of a few points is aimed at."""
    losing: bool = False
    """Whether the disk loses what was not synced; the nursery is preloaded then, and the store a file."""
    kills: list[Kill] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _waiting: list[Kill] = field(default_factory=list)
    _address: dict[str, Any] = field(default_factory=dict)
    _log_from: int = 0
    _looked: int = 0

    async def run(self, most: int, told: Callable[[list[Kill]], None]) -> None:
        """Until `most` kills are judged, the world is old, or a promise is broken; `told` hears of each as it is."""
        self._luck, self._commit, self._told = Random(self.seed), commit(), told
        folder = Path(tempfile.mkdtemp(prefix="sj-w-", dir=_QUICK))
        await self.ground.clear()
        self._log_from = self.ground.eyes.log.stat().st_size
        facts = self.ground.facts()
        if self.shared is not None:
            facts["database"] = await self._furnish(self.shared)
        self._case = Case(story="chance", folder=str(folder), losing=self.losing, **facts)
        self._case.registry.write_text("{}")
        life = 0
        while life < LIVES and len(self.kills) < most and not self.faults:
            await self._life(life)
            life += 1
        if not self.faults:
            await self._close()
        self.nursery.forget()
        if self.faults:
            self.faults.append(f"its folder is {folder}")
        else:
            shutil.rmtree(folder)

    @property
    def store(self) -> str:
        """Its kind."""
        if self.shared is not None:
            return "postgres"
        return "synced" if self.losing else "sqlite"

    async def _furnish(self, server: Server) -> str:
        name = secrets.token_hex(6)
        self._address = {"host": server.host, "port": server.port, "user": server.superuser}
        self._address |= {"password": server.password, "database": f"store_{name}"}
        return await server.store(name)

    def _plan(self) -> Plan:
        luck, seed = self._luck, self._luck.getrandbits(32)
        kind = luck.random()
        if kind < 0.2:
            settling = luck.random() < 0.3
            return Plan(seed, outside=luck.uniform(0, 0.12 if settling else 0.3), settling=settling)
        if kind < 0.3:
            armed = f"store.commit.{luck.choice(('before', 'after'))}=kill@{luck.randint(1, 25)}"
        else:
            few = [(self.engine, self.store, point) for point in luck.sample(all_points(), 8)]
            rarest = min(few, key=lambda aim: self.tally[aim])
            self.tally[rarest] += 1
            armed = f"{rarest[2]}=kill@{luck.choice((1, 1, 1, 2, 3))}"
        return Plan(seed, at_once=armed) if luck.random() < 0.25 else Plan(seed, later=armed)

    async def _life(self, number: int) -> None:
        plan, nursery = self._plan(), self.nursery
        if self._luck.random() < _COLD:
            nursery.renew()
        if self._luck.random() < _OUTAGE:
            await self.ground.restart()
        points = ",".join(filter(None, (f"{SETTLED}=stop", plan.at_once)))
        case = replace(self._case, seed=plan.seed, points=points, later=plan.later)
        case.marker.unlink(missing_ok=True)  # it may have to be written on a full disk
        nursery.begin(case)
        if plan.outside is not None and plan.settling:
            status = nursery.stops_or_dies_within(plan.outside)
        else:
            status = nursery.stops_or_ends()
        if status is None:
            await self._look(case)
            if self.faults:
                nursery.signal(signal.SIGKILL)
                nursery.ended()
                return
            nursery.signal(signal.SIGCONT)
            status = nursery.ended() if plan.outside is None else nursery.kill_within(plan.outside)
        died_at = [point for point in fired(case) if point != SETTLED]
        if self.losing:
            lose(case.store, case.synced)
        if status == -signal.SIGKILL:
            point = died_at[0] if died_at else OUTSIDE
            self._waiting.append(
                Kill(self.seed, number, self._commit, self.store, self.engine, point),
            )
        elif status != 0:
            self._judge([f"a life broke: {status}, {why(case)}"], number)

    async def _close(self) -> None:
        case = replace(self._case, story="closing", points="", later="")
        if self.nursery.run(case) != 0:
            self._judge([f"the last life broke: {why(case)}"], LIVES)
            return
        store = SharedStore(self._address) if self.shared else FileStore(case.store)
        found = await look(self._outside(case, store), after_a_minute=True)
        left = await self.ground.eyes.principals("sj_")
        self._judge(found + [f"{name} is left" for name in left or ()], LIVES)

    async def _look(self, case: Case) -> None:
        """While it stands still; what is in a file on a copy, since it holds that."""
        store = SharedStore(self._address) if self.shared else FileStore(_copied(case), _RESERVE)
        where = self._outside(case, store)
        few = replace(where, knocks=lambda keys: self._luck.sample(keys, min(2, len(keys))), log_from=self._looked)
        self._judge(await look(few), len(self.kills))
        self._looked = self.ground.eyes.log.stat().st_size

    def _outside(self, case: Case, store: FileStore | SharedStore) -> Outside:
        self._looked = max(self._looked, self._log_from)
        return Outside(
            store=store,
            eyes=self.ground.eyes,
            log_from=self._log_from,
            notes=case.notes,
            registry=case.registry,
            ahead=case.ahead,
        )

    def _judge(self, found: list[str], life: int) -> None:
        verdict = found[0] if found else OK
        judged = [replace(kill, verdict=verdict) for kill in self._waiting]
        if found and not judged:
            judged = [Kill(self.seed, life, self._commit, self.store, self.engine, "-", verdict)]
        self._waiting.clear()
        self.kills += judged
        self.faults += found
        self._told(judged)


def _copied(case: Case) -> Path:
    copy = Path(case.folder, "seen")
    copy.mkdir(exist_ok=True)
    (copy / "broker.db-shm").unlink(missing_ok=True)
    for name in ("broker.db", "broker.db-wal"):
        (copy / name).unlink(missing_ok=True)
        if (case.store / name).exists():
            shutil.copyfile(case.store / name, copy / name)
    return copy
