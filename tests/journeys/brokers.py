"""Three brokers over one PostgreSQL, one attestor server and node agent, and a PostgreSQL they give secrets of.

Whether it all went well is judged by SQL of this file's own, over the store and the target, and by nothing of ours.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from ca.runtime.clock import SystemClock
from journeys.processes import PATIENCE, Running, python, short_folder, started
from journeys.three import broker_at, identity_side
from servers.postgres import Room, Server, postgres
from servers.standing import free_port

NAMES = ("one", "two", "three")
TARGET = "orders-db"
ROLE = f"{TARGET}/readonly"
CLOCK = SystemClock()


@dataclass
class Brokers:
    """What runs, and how to start and judge it; the store is `under` everything, the secrets are of `room`."""

    folder: Path
    store: str
    under: Server
    room: Room
    stack: AsyncExitStack
    attestor: int
    ports: Mapping[str, int] = field(default_factory=lambda: {name: free_port() for name in NAMES})
    running: dict[str, Running] = field(default_factory=dict)

    async def start(self, name: str, environment: Mapping[str, str] | None = None) -> Running:
        """A broker, for the first time or again at the same address; it answers."""
        settings, password = self._settings(name), {"TARGET_PASSWORD": self.room.admin_password}
        one = broker_at(self.folder, name, settings, {**password, **(environment or {})})
        running = await self.stack.enter_async_context(one)
        await running.line("the broker answers at")
        self.running[name] = running
        return running

    @asynccontextmanager
    async def agent(self, script: str, *words: str, order: Sequence[str] = NAMES) -> AsyncIterator[Running]:
        """An agent that asks the brokers in this order."""
        addresses = ",".join(f"https://127.0.0.1:{self.ports[name]}" for name in order)
        environment = {"SPIFFE_ENDPOINT_SOCKET": f"unix://{self.folder}/workload.sock", "SOJOURN_BROKER": addresses}
        name = f"agent-{secrets.token_hex(2)}"
        async with started(*python(script), *words, folder=self.folder, name=name, environment=environment) as running:
            yield running

    async def clean(self) -> None:
        """Return when nothing is wrong any more, within a minute; what still is then is told."""
        until, found = CLOCK.boot() + PATIENCE, ["nobody has looked"]
        while found and CLOCK.boot() < until:
            await CLOCK.sleep(0.5)
            found = await self.faults()
        assert found == []

    async def faults(self) -> list[str]:
        """What breaks the promise at this moment: see `_judge`."""
        database = self.store.rpartition("?")[0].rpartition("/")[2]
        store = await self.under.connect(database)
        try:
            async with store.transaction(isolation="repeatable_read"):
                facts = {name: await store.fetch(query) for name, query in _STORE.items()}
        finally:
            await store.close()
        target = await self.room.connect()
        try:
            roles = {row["name"] for row in await target.fetch(_ROLES)} - set(self.room.before)
            sessions = {row["name"] for row in await target.fetch(_SESSIONS)}
        finally:
            await target.close()
        return list(_judge(facts, roles, sessions))

    def _settings(self, name: str) -> dict[str, Any]:
        room, folder = self.room, self.folder
        return {
            "listen": {"port": self.ports[name]},
            "admin_socket": str(folder / "admin" / f"{name}.sock"),
            "workload_api": f"unix://{folder / 'workload.sock'}",
            "attestor": {"host": "127.0.0.1", "port": self.attestor},
            "database": self.store,
            "dead_after": "3s",
            "sweep_every": "3s",
            "targets": {
                TARGET: {
                    "engine": {
                        "kind": "postgres",
                        "host": room.host,
                        "port": room.port,
                        "database": room.database,
                        "user": room.admin,
                        "password": "env:TARGET_PASSWORD",
                    },
                    "roles": {"readonly": {"sensitivity": "internal", "engine": {"groups": [room.groups[0]]}}},
                }
            },
        }


_STORE = {
    "open": "SELECT name, state FROM leases WHERE target = 'orders-db' AND closed_at IS NULL ORDER BY id",
    "undead": """
        WITH RECURSIVE ended (id) AS (SELECT id FROM tasks WHERE ended_at IS NOT NULL
          UNION SELECT t.id FROM tasks t JOIN ended e ON t.parent = e.id)
        SELECT l.id, l.target FROM leases l WHERE l.closed_at IS NULL AND l.task IN (SELECT id FROM ended)""",
    "epoch": "SELECT n, (SELECT count(*) FROM events) AS told FROM epoch",
    "silent": """
        SELECT id FROM tasks t WHERE ended_at IS NOT NULL AND 1 <>
          (SELECT count(*) FROM events e WHERE e.task = t.id AND e.kind = 'task.ended')""",
    "closed": """
        SELECT id FROM leases l WHERE closed_at IS NOT NULL AND 1 <>
          (SELECT count(*) FROM receipts r WHERE r.lease = l.id AND r.kind = 'lease.closed')""",
}
_ROLES = r"SELECT rolname::text AS name FROM pg_roles WHERE rolname LIKE 'sj\_%'"
_SESSIONS = r"""
SELECT DISTINCT COALESCE(r.rolname, 'a role that is gone')::text AS name
FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.usesysid IS NOT NULL AND (r.oid IS NULL OR r.rolname LIKE 'sj\_%')"""


def _judge(facts: Mapping[str, Sequence[asyncpg.Record]], roles: set[str], sessions: set[str]) -> list[str]:
    """Principals = active leases; no session of another; nothing of an ended task; each end told and recorded once."""
    active = {row["name"] for row in facts["open"] if row["state"] == "active"}
    found = [f"the role {name} is there, and no active lease" for name in sorted(roles - active)]
    found += [f"the lease of {name} is active, and there is no such role" for name in sorted(active - roles)]
    found += [f"a session of {name} is open" for name in sorted(sessions - active)]
    found += [f"the lease {row['id']} at {row['target']} outlives its task" for row in facts["undead"]]
    (epoch,) = facts["epoch"]
    if epoch["n"] != epoch["told"]:
        found.append(f"{epoch['told']} events of {epoch['n']}")
    found += [f"the end of {row['id']} was not told once" for row in facts["silent"]]
    found += [f"the lease {row['id']} was not closed once" for row in facts["closed"]]
    return found


@asynccontextmanager
async def brokers(under: Server | None = None, store: str | None = None) -> AsyncIterator[Brokers]:
    """The identity side, the store and the target; no broker runs yet.

    The store is on the server of the target, or on another one, `under` it, that a test stops and starts.
    """
    async with postgres() as server, server.room() as room, AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        _, _, port = await stack.enter_async_context(identity_side(folder))
        under = under or server
        yield Brokers(folder, store or await under.store(secrets.token_hex(8)), under, room, stack, port)


async def told(running: Running, **wanted: Any) -> dict[str, Any]:
    """The next line of JSON an agent prints that says each of `wanted` (whatever it is, when that is None)."""
    while True:
        said: dict[str, Any] = json.loads(await running.line())
        if all(name in said and value in {None, said[name]} for name, value in wanted.items()):
            return said
