"""A broker that is a process of its own, to be killed, frozen and started again; forked by a warm parent (`parent.py`).

It composes the world as `broker/serve.py` does (store, targets, policies, gate, loops; no doors), over a real store and
a real server, and plays a story in it (`stories.py`, `chance.py`). Its clock is the machine's, which a story may let
leap ahead: nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from broker.engines.protocol import Issued, Lent, Making
from broker.engines.svid import TARGET, Svid
from broker.lifecycle.configured import Configuration, Configured, open_configured
from broker.lifecycle.world import World, open_world
from broker.loops import incarnations
from broker.loops.claims import BEAT, Claims
from broker.loops.deadlines import Deadlines
from broker.loops.identities import Identities
from broker.loops.incarnations import Incarnations
from broker.loops.processes import Processes
from broker.loops.reaper import Reaper
from broker.loops.rotations import Rotations
from broker.loops.sweep import Sweep
from broker.model.ids import InstanceId
from broker.model.observed import Observation
from broker.policy.source import PolicyHolder
from broker.service.gate import Gate, Limits
from broker.service.proofs import Proofs
from broker.settings import TargetSettings
from broker.store.sealed import Sealed
from broker.targets.target import open_target
from ca.errors import Problem
from ca.keys import open_key_store
from ca.keys.protocol import Place
from ca.runtime.database import Database, Transaction, migrate, open_database
from ca.runtime.metrics import Metrics
from ca.runtime.past import chronicle
from ca.runtime.settings import loads
from ca.seal import AesSeal
from ca.spiffe.id import TrustDomain
from fakes.target import FakeEngine, FakeTarget
from fakes.wire_tap import WireTap, tapped
from fakes.world import Watching, role
from faults.case import Case, LeapingClock
from faults.hands import HANDS, Hands
from faults.registry import Registry
from servers.postgres import Room

DATABASE, ANNEX, KEYS, SHELF = "orders-db", "annex-db", "keys", "shelf"
"""Two targets that are one PostgreSQL, one in memory whose secrets can't be taken back, one that lends an account."""

ACCOUNT = "legacy"
"""Somebody else made it at the PostgreSQL."""

SEAL = AesSeal(bytes(range(32)))

INSTANCE = InstanceId("5" * 32)
STARTER = PolicyHolder(None)
_KEPT = ("password", "private_key", "token", "access_token", "session_token")
_TRIES = 8
PATIENCE = 4.0
"""Seconds after which a silent broker is dead."""


@dataclass
class Broker:
    """A world with its loops, not yet ticking."""

    case: Case
    gate: Gate
    world: World
    clock: LeapingClock
    observer: Watching
    claims: Claims
    lives: Incarnations
    reaper: Reaper
    deadlines: Deadlines
    processes: Processes
    sweep: Sweep
    identities: Identities
    rotations: Rotations
    registry: Registry
    agents: socket.socket
    taps: dict[str, WireTap] = field(default_factory=dict)
    sessions: list[Any] = field(default_factory=list)

    async def tick(self) -> None:
        """Every loop but the sweep, once, in the order `serve` starts them; then the reaper, which they woke.

        As in `background`: what can be tried again is, at the next tick; anything else ends the process.
        """
        for tick in (*self.loops().values(), self.reaper.tick):
            try:
                await tick(self.clock.now())
            except Problem as problem:
                if not problem.retryable:
                    raise

    def loops(self) -> dict[str, Callable[[datetime], Awaitable[object]]]:
        """As `serve` has them, but the sweep."""
        return {
            "claims": lambda _: self.claims.tick(self.world),
            "rotations": self.rotations.tick,
            "reaper": self.reaper.tick,
            "deadlines": self.deadlines.tick,
            "processes": self.processes.tick,
            "identities": self.identities.tick,
            "past": self.lives.tick,
        }

    async def recover(self) -> None:
        """The first ticks and one sweep; where others may hold the store, only once they are seen to be dead."""
        await self.tick()
        for _ in range(0 if self.claims.exclusive else int(PATIENCE)):
            self.clock.leap(2 * BEAT)
            await self.tick()
        await self.sweep_once()
        await self.tick()
        await self.over()
        for _ in range(_TRIES):
            if not await self.world.database.read(_put_off):
                break  # else a server that is busy asked for another try
            self.clock.leap(1)
            await self.tick()
            await self.over()
        for _ in range(0 if self.claims.exclusive else 3):
            if not await self.world.database.read(_still_active):
                break  # of a task that ended while this went on: for a moment it is left to whoever held it
            self.clock.leap(2 * BEAT)
            await self.tick()

    async def over(self) -> None:
        """Wait for what the reaper began: a tick stops waiting for a target that is slow, and this one may be busy."""
        await asyncio.gather(*self.reaper._under_way.values())

    async def sweep_once(self) -> None:
        """What a broker does when it starts, and each minute."""
        await self.sweep.tick(self.clock.now())

    def note(self, what: str, **facts: Any) -> None:
        """Tell the outside."""
        with self.case.notes.open("a") as file:
            file.write(json.dumps({"what": what, **facts}) + "\n")

    def hand(self, issued: Issued, name: str) -> None:
        """The outside is told, as an agent would remember it: by the login's name, or by the lease's if it has none."""
        door, password = door_of(issued), kept_of(issued)
        others = sorted({secret.reveal() for secret in issued.secret.values()} - {password})
        user = name if door else str(issued.fields.get("username", name))
        ends_at = issued.fields.get("expires_at")
        self.note("secret", user=user, password=password, door=door, others=others, ends_at=ends_at)

    @property
    def hands(self) -> Hands:
        """Of agents, and of strangers."""
        return HANDS[self.case.room.get("kind", "postgres")](self.case.room, self.case.superuser)

    async def log_in(self, user: str, password: str) -> None:
        """Open a session as the agent; it outlives this process."""
        session, descriptor = await self.hands.enter(user, password)
        self.sessions.append(session)
        socket.send_fds(self.agents, [b"."], [descriptor])


async def _put_off(tx: Transaction) -> bool:
    row = await tx.fetchrow(
        "SELECT count(*) AS n FROM leases WHERE state = 'revoking' AND access_ended_at IS NULL AND trouble IS NOT NULL"
    )
    return row is not None and row["n"] > 0


async def _still_active(tx: Transaction) -> bool:
    row = await tx.fetchrow(
        "SELECT count(*) AS n FROM leases l JOIN tasks t ON t.id = l.task"
        " WHERE l.state = 'active' AND t.ended_at IS NOT NULL"
    )
    return row is not None and row["n"] > 0


def kept_of(issued: Issued) -> str:
    """What an agent keeps to itself."""
    return next(issued.secret[name] for name in _KEPT if name in issued.secret).reveal()


def door_of(issued: Issued) -> str | None:
    """What is knocked with, where nobody can tell who there is."""
    if "certificate" in issued.fields:
        return str(issued.fields["certificate"])
    if "session_token" in issued.secret:
        keys = [issued.secret[name].reveal() for name in ("secret_access_key", "session_token")]
        return " ".join((str(issued.fields["access_key_id"]), *keys))
    return issued.secret["access_token"].reveal() if "access_token" in issued.secret else None


def room_of(case: Case) -> Room:
    """Where the agents log in."""
    return Room(**{**case.room, "groups": tuple(case.room["groups"])})


@asynccontextmanager
async def broker(case: Case, agents: socket.socket) -> AsyncIterator[Broker]:
    """Compose it, as `broker/serve.py` does."""
    case.store.mkdir(mode=0o700, exist_ok=True)
    clock = LeapingClock(case.ahead)
    observer = Watching()
    if case.ended.exists():
        observer.states |= {InstanceId(dead): Observation.ENDED for dead in case.ended.read_text().split()}
    async with AsyncExitStack() as stack:
        address = case.database or f"sqlite:{case.store}/broker.db"
        database = await stack.enter_async_context(open_database(address))
        await migrate(database, "broker", files("broker.migrations"))
        configured, taps, registry = await _targets(case, clock, stack, database)
        policies = STARTER
        lives = Incarnations(database, chronicle(address, database))
        world = await stack.enter_async_context(
            open_world(
                database=database,
                engines=configured.engines,
                targets=configured.targets,
                roles=configured.roles,
                policy_version=lambda: policies.current.version,
                broker=f"b{secrets.token_hex(8)}",
                installation=await lives.begin(clock.now()),
                observer=observer,
                clock=clock,
                parties=("attestor",),
                seal=SEAL,
            )
        )
        await incarnations.begun(world, clock.now())
        claims = Claims(exclusive=not case.database, patience=PATIENCE)
        yield Broker(
            case=case,
            gate=_gate(world, policies),
            world=world,
            clock=clock,
            observer=observer,
            claims=claims,
            lives=lives,
            reaper=Reaper(world, claims),
            deadlines=Deadlines(world),
            processes=Processes(world),
            sweep=Sweep(world),
            identities=Identities(world),
            rotations=Rotations(world),
            registry=registry,
            agents=agents,
            taps=taps,
        )


async def _targets(
    case: Case, clock: LeapingClock, stack: AsyncExitStack, database: Database
) -> tuple[Configured, dict[str, WireTap], Registry]:
    """Those of the case, the one in memory, and the identities of tasks."""
    there = {
        name: tapped(*said["at"], tls=said.get("tls", False)) for name, said in case.targets.items() if "at" in said
    }
    taps = {name: await stack.enter_async_context(tap) for name, tap in there.items()}
    keys = open_key_store("disk", Place(folder=Path(case.folder, "keys")))
    configured = await stack.enter_async_context(
        open_configured(Lent(clock=clock, vault=Sealed(database, SEAL, clock), keys=keys))
    )
    wanted = {name: _tapped(case, name, taps.get(name)) for name in case.targets}
    await configured.become(
        wanted or {SHELF: _shelf(), **{name: _configuration(case, name) for name in (DATABASE, ANNEX)}}
    )
    within = timedelta(seconds=case.deadline)
    for name in (*configured.engines, KEYS):
        configured.targets[name] = await stack.enter_async_context(open_target(name, clock, deadline=within))
    registry = _registry(case)
    if case.registry.exists():
        configured.targets[TARGET] = await stack.enter_async_context(open_target(TARGET, clock, deadline=within))
        configured.engines[TARGET] = Svid(registry)
    configured.engines[KEYS] = FakeEngine(FakeTarget(clock), revocable=False, making=Making.UPSERT)
    short = timedelta(minutes=1)
    configured.roles[f"{KEYS}/signing"] = role(target=KEYS, name="signing", engine="postgres", ttl=short)
    return configured, taps, registry


def _registry(case: Case) -> Registry:
    """It is there for the story that needs it, and for the lives after it."""
    if case.story == "own_identity" and not case.registry.exists():
        case.registry.write_text("{}")
    return Registry(case.registry)


def _gate(world: World, policies: PolicyHolder) -> Gate:
    hours = timedelta(hours=12)
    limits = Limits(longest_task=hours, longest_heartbeat=hours, deepest_tree=8, most_live_tasks=100)
    return Gate(
        world=world,
        policies=policies,
        proofs=Proofs(),
        limits=limits,
        metrics=Metrics(),
        trust_domain=TrustDomain.parse("example.org"),
    )


def _configuration(case: Case, name: str) -> Configuration:
    room = room_of(case)
    os.environ["SOJOURN_TARGET_PASSWORD"] = room.admin_password
    said = {
        "engine": {
            "kind": "postgres",
            "host": room.host,
            "port": room.port,
            "database": room.database,
            "user": room.admin,
            "password": "env:SOJOURN_TARGET_PASSWORD",
            "clock_limit": "24h",  # stories leap
        },
        "roles": {
            "readonly": {"sensitivity": "internal", "ttl": "60s", "engine": {"groups": [room.groups[0]]}},
            "readwrite": {"sensitivity": "confidential", "ttl": "60s", "engine": {"groups": [room.groups[1]]}},
        },
    }
    target = loads(json.dumps(said), "the target of this case", TargetSettings)
    return Configuration(engine=target.engine, roles=target.to_roles(name))


def _shelf() -> Configuration:
    lent = {"check_out": {"target": DATABASE, "account": ACCOUNT}}
    said = {"engine": {"kind": "static"}, "roles": {ACCOUNT: {"sensitivity": "internal", "ttl": "60s", "engine": lent}}}
    target = loads(json.dumps(said), "the shelf of this case", TargetSettings)
    return Configuration(engine=target.engine, roles=target.to_roles(SHELF))


def _tapped(case: Case, name: str, tap: WireTap | None) -> Configuration:
    """A target as the case describes it, behind its tap when it is somewhere."""
    os.environ.update(case.environment)
    port, text = "0" if tap is None else str(tap.address[1]), json.dumps(case.targets[name]["said"])
    text = text.replace('"@PORT@"', port).replace("@PORT@", port)
    target = loads(text, "the target of this case", TargetSettings)
    return Configuration(engine=target.engine, roles=target.to_roles(name))


@contextmanager
def nothing_grows() -> Iterator[None]:
    """A disk that is full: no file of this process may be longer than half a kilobyte. The marker is shorter."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
