"""Targets as the contract of engines sees them: an engine, a role of it, and the door agents knock at.

Every implementation in `PLACES`: each PostgreSQL that is installed, with an admin that is no superuser and with one
that is, an attestor server, and the fake the other tests stand on.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from attestor.server.store.nodes import Node
from attestor.wire.attestation import Attestation
from attestor.wire.node import Signed
from attestor.wire.task_identity import Grant, Granted, Withdrawal
from broker.engines.postgres import Settings, open_engine
from broker.engines.protocol import Issued, Lent
from broker.engines.svid import Svid, task_role
from broker.model.lease import Handle
from broker.model.role import Role
from ca.runtime.clock import Clock, SystemClock
from ca.spiffe.id import SpiffeId
from ca.store import is_revoked
from fakes.attestor_parts import Parts, attestation, parts, wants
from fakes.target import FakeEngine, FakeTarget, Session
from fakes.world import role
from servers.postgres import Room, Server, installations, postgres

IDENTITY_RULES = """\
rules:
  - name: a
    nodes: ["node:*"]
    when: [unix:uid:7]
    spiffe_id: /a
"""


class Visit(Protocol):
    """Somebody who was let in."""

    async def answers(self) -> bool:
        """Whether the session is still open."""


class Place(Protocol):
    """One target."""

    engine: Any
    role: Role
    clock: Clock
    prefix: str

    async def login(self, issued: Issued) -> Visit | None:
        """Knock; None when the door stays shut."""


@dataclass
class FakePlace:
    engine: FakeEngine
    role: Role
    clock: Clock
    prefix: str

    async def login(self, issued: Issued) -> Session | None:
        return await self.engine.target.login(issued)


@dataclass
class PostgresVisit:
    connection: Any

    async def answers(self) -> bool:
        return await reads(self.connection)


@dataclass
class PostgresPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    room: Room
    server: Server
    superuser: bool
    visits: list[PostgresVisit] = field(default_factory=list)

    async def login(self, issued: Issued, **options: Any) -> PostgresVisit | None:
        try:
            name, password = str(issued.fields["username"]), issued.secret["password"].reveal()
            visit = PostgresVisit(await self.room.connect(name, password, **options))
        except (asyncpg.PostgresError, ConnectionError):
            return None
        self.visits.append(visit)
        return visit


async def reads(connection: Any) -> bool:
    """Whether a session still reads rows."""
    try:
        return bool(await connection.fetchval("SELECT count(*) FROM public.orders") == 3)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        return False


class EachItsOwnTask(Svid):
    """Every name is another task's: the role of a test is one and the same."""

    def plan(self, role: Role, name: str) -> Handle:
        return super().plan(replace(role, settings={**role.settings, "task": name.rpartition("_")[2]}), name)


@dataclass
class Beside:
    """An attestor server's identities of tasks, without the wire to them."""

    server: Parts
    connected: bool = True

    async def grant(self, grant: Grant) -> Granted:
        return await self.server.identities.grant(grant, self.server.clock.now())

    async def withdraw(self, name: str, *, close: bool = False) -> int:
        return await self.server.identities.withdraw(Withdrawal(name=name, close=close), self.server.clock.now())

    async def names(self, prefix: str) -> Sequence[str]:
        return await self.server.identities.names(prefix, "")

    async def confirm(self, names: Iterable[str]) -> Sequence[str]:
        return await self.server.identities.confirm(tuple(names), self.server.clock.now())


@dataclass
class LeafVisit:
    """A certificate of the task is what opens doors."""

    server: Parts
    chain: bytes

    async def answers(self) -> bool:
        peer = self.server.peer(self.chain)
        return not await self.server.database.read(lambda tx: is_revoked(tx, peer.issuer_key_id, peer.serial))


@dataclass
class SvidPlace:
    engine: EachItsOwnTask
    role: Role
    clock: Clock
    prefix: str
    server: Parts
    node: Node
    process: Attestation

    async def login(self, issued: Issued) -> LeafVisit | None:
        item = wants(SpiffeId.parse(str(issued.fields["spiffe_id"])).path, self.process)
        (result,) = await self.server.workloads.sign(self.node, [item], self.clock.now())
        return LeafVisit(self.server, result.chain) if isinstance(result, Signed) else None


@asynccontextmanager
async def svid_place() -> AsyncIterator[SvidPlace]:
    """A process of one node, and the identities of its tasks."""
    with tempfile.TemporaryDirectory() as folder:
        async with parts(Path(folder), IDENTITY_RULES) as server:
            node, process = await server.join("n"), attestation("unix:uid:7")
            await server.workloads.sign(node, [wants("/a", process)], server.clock.now())
            the_role, engine = task_role("t", process.instance), EachItsOwnTask(Beside(server))
            yield SvidPlace(engine, the_role, server.clock, new_prefix(), server, node, process)


def new_prefix() -> str:
    """The prefix of an installation no other test has."""
    return f"sj_{secrets.token_hex(4)}_"


@asynccontextmanager
async def fake_place() -> AsyncIterator[FakePlace]:
    """The target in memory."""
    clock = SystemClock()
    yield FakePlace(FakeEngine(FakeTarget(clock)), role(), clock, new_prefix())


@asynccontextmanager
async def postgres_place(
    binaries: Path | None = None,
    *,
    superuser: bool = False,
    options: Sequence[str] = (),
    fresh: bool = False,
    **settings: Any,
) -> AsyncIterator[PostgresPlace]:
    """A room of a real server; its visitors leave with it."""
    clock = SystemClock()
    async with (
        postgres(binaries, options=options, fresh=fresh) as server,
        server.room(superuser=superuser) as room,
        open_engine(settings_for(room, **settings), Lent(clock=clock)) as engine,
    ):
        the_role = role(engine="postgres", settings={"groups": [room.groups[0]]})
        place = PostgresPlace(engine, the_role, clock, new_prefix(), room, server, superuser)
        try:
            yield place
        finally:
            for visit in place.visits:
                visit.connection.terminate()
            await clock.sleep(0)


def settings_for(room: Room, **more: Any) -> Settings:
    """What an operator would say of this room; its password is in the environment of this process."""
    variable = f"SOJOURN_TEST_{room.admin.upper()}"
    os.environ[variable] = room.admin_password
    facts = {"host": room.host, "port": room.port, "database": room.database, "user": room.admin}
    return Settings.model_validate({**facts, "password": f"env:{variable}", **more})


PLACES: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {"fake": fake_place, "svid": svid_place}
for _name, _binaries in installations().items():
    PLACES[_name] = partial(postgres_place, _binaries)
    PLACES[f"{_name}-superuser"] = partial(postgres_place, _binaries, superuser=True)

WITH_SECRETS = [name for name in PLACES if name != "svid"]
"""Those that hand a secret over and carry a claim: what an operator configures."""
