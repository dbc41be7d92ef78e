"""A real `up` and a PostgreSQL that asks for certificates: a task's agent is let in by one, until the task ends."""

from __future__ import annotations

import asyncio
import json

from broker.engines.protocol import Issued
from ca.runtime.clock import SystemClock
from ca.runtime.secret import Secret
from journeys.leading import agent, told
from journeys.processes import PATIENCE
from journeys.up import up
from servers.postgres import Room, postgres
from servers.postgres_place import reads
from servers.postgres_tls import believe, pki, showing

CLOCK = SystemClock()
VARIABLE = "ORDERS_PASSWORD"


def target(room: Room) -> str:
    """What an operator writes."""
    engine = {
        "kind": "postgres",
        "host": room.host,
        "port": room.port,
        "database": room.database,
        "user": room.admin,
        "password": f"env:{VARIABLE}",
        "tls": "verify",
        "tls_ca": str(pki().trusted),
        "secret_kind": "certificate",
    }
    role = {"sensitivity": "internal", "ttl": "5m", "engine": {"groups": [room.groups[0]]}}
    return json.dumps({"engine": engine, "roles": {"readonly": role}})


async def test_a_certificate_opens_the_database_until_its_task_ends() -> None:
    """The database's owner installs what `target ca` prints; nothing else passes between the two."""
    async with (
        asyncio.timeout(PATIENCE),
        postgres(options=pki().options()) as server,
        server.room() as room,
        up(targets={"invoices": target(room)}, environment={VARIABLE: room.admin_password}) as running,
    ):
        printed = await running.sojourn("target", "ca", "invoices")
        assert printed.code == 0, printed.err
        await believe(server, room, printed.out, CLOCK)
        checked = await running.sojourn("target", "check", "invoices", "--json")
        findings = json.loads(checked.out)["findings"]
        assert [one["name"] for one in findings if not one["well"]] == ["client CA"]  # this `up` has no `--key`
        async with agent(running, "one") as one:
            await told(one, "open", "task")
            given = await told(one, "obtain invoices/readonly", "certificate")
            secret = {"private_key": Secret(given["private_key"])}
            issued = Issued(fields={"certificate": given["certificate"]}, secret=secret)
            session = await room.connect(given["username"], "", ssl=showing(issued))
            assert await reads(session)
            await told(one, "end", "state")
            while await room.principals():
                await CLOCK.sleep(0.05)
            assert not await reads(session)
