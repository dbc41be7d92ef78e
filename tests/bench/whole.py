"""The product as people run it: `sojourn up` in a process of its own, and this process as an agent of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from attestor.client.http import client_session
from attestor.client.source import X509Source
from bench.process import Other, started
from broker.engines.postgres.settings import CERTIFICATE
from ca.runtime.places import Places
from ca.spiffe.match import IdPattern
from servers.postgres import Room
from servers.postgres_tls import pki

TARGET = "orders-db"
ROLE = f"{TARGET}/readonly"
_SETTINGS = """\
engine:
  kind: postgres
  host: "{host}"
  port: {port}
  database: {database}
  user: {admin}
  password: "env:SOJOURN_BENCH_PASSWORD"
{tls}roles:
"""
_ROLE = """\
  {name}:
    sensitivity: internal
    ttl: 5m
    longest: 1h
    engine: {{groups: [{group}], secret_kind: {kind}}}
"""


@dataclass(frozen=True, slots=True)
class Whole:
    """A running `up`."""

    process: Other
    told: Mapping[str, Any]

    @property
    def socket(self) -> str:
        """The Workload API's."""
        return str(self.told["workload_api"]).removeprefix("unix://")


@asynccontextmanager
async def whole(
    folder: Path, room: Room | None = None, *, kind: str = "scram-few", kinds: Sequence[str] = ()
) -> AsyncIterator[Whole]:
    """`sojourn up` with its state in `folder` and, when given, a PostgreSQL as its one target.

    Its role `readonly` gives secrets of `kind`; each of `kinds` has a role of that name besides.
    """
    state = folder / "state"
    environment: dict[str, str] = {}
    places = Places.of(state)
    places.create()
    if room is not None:
        (state / "targets").mkdir(mode=0o700)
        facts = {"host": room.host, "port": room.port, "database": room.database, "admin": room.admin}
        tls = f'  tls: verify\n  tls_ca: "{pki().trusted}"\n' if CERTIFICATE in (kind, *kinds) else ""
        text = _SETTINGS.format(**facts, tls=tls)
        for name, one in {"readonly": kind, **dict(zip(kinds, kinds, strict=True))}.items():
            text += _ROLE.format(name=name, group=room.groups[0], kind=one)
        (state / "targets" / f"{TARGET}.yaml").write_text(text)
        environment["SOJOURN_BENCH_PASSWORD"] = room.admin_password
    command = [sys.executable, "-c", "from broker.command import main; main()", "up", "--state", str(state)]
    async with started(command, None, **environment) as process:
        assert process.process.stdout is not None
        async with asyncio.timeout(60):
            async for line in process.process.stdout:
                if line.startswith(b"Next"):
                    break
        yield Whole(process, json.loads(places.running.read_text()))


@dataclass(frozen=True, slots=True)
class Agent:
    """This process, with an identity and a way to the broker."""

    source: X509Source
    session: aiohttp.ClientSession
    broker: str

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """One call that must be well."""
        async with self.session.post(self.broker + path, json=body) as answer:
            said = await answer.json(content_type=None)
            if answer.status >= 400:
                raise RuntimeError(f"the broker refused {path}: {said}")
            return said

    async def open(self) -> str:
        """A task that may have the role."""
        scope = {"roles": [f"{TARGET}/*"], "sensitivity": "internal"}
        opened = await self.post("/v1/tasks", {"purpose": "measure", "lasts": "30m", "scope": scope})
        return str(opened["task"]["id"])

    async def obtain(self, task: str, role: str = ROLE) -> Any:
        """A secret of the role, acknowledged."""
        return await self.post(f"/v1/tasks/{task}/credentials?ack=received", {"role": role, "confidence": 90})

    async def end(self, task: str) -> None:
        """It is done."""
        await self.post(f"/v1/tasks/{task}/end", {"outcome": "done"})


@asynccontextmanager
async def agent(up: Whole) -> AsyncIterator[Agent]:
    """Attested as any agent of this uid, with connections that show its SVID."""
    async with X509Source.open(str(up.told["workload_api"])) as source:
        broker = IdPattern.exactly(source.svid.id.trust_domain.member("/sojourn/broker"))
        async with client_session(source, broker) as session:
            yield Agent(source, session, str(up.told["broker"]))
