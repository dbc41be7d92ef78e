"""Two attestor servers over one real PostgreSQL, and a node agent at each: six processes' worth of high availability.

The test itself is the workload: it holds streams at both node agents, and of every chain it is shown it asks whether
each of the bundles it holds at that moment vouches for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestor.client.workload_api import WorkloadApiClient
from ca.errors import Unavailable
from ca.runtime.clock import SystemClock
from ca.runtime.places import make
from ca.spiffe.bundle import BundleSet
from ca.spiffe.der import split
from ca.spiffe.errors import Untrusted
from ca.spiffe.x509svid import X509Svid, verify
from journeys.processes import SOJOURN, Running, short_folder, sojourn, started
from servers.postgres import postgres
from servers.standing import free_port

TRUST_DOMAIN = "several.test"
NAMES = ("one", "two")
STREAMS = 4
"""Held at each node agent."""


@dataclass
class Watch:
    """What one held stream was last shown."""

    name: str
    svid: X509Svid | None = None
    bundles: BundleSet = field(default_factory=BundleSet.of)
    updates: int = 0


@dataclass
class Several:
    """The servers, the node agents, and what the streams saw."""

    folder: Path
    database: str
    stack: AsyncExitStack
    ports: dict[str, int]
    servers: dict[str, Running] = field(default_factory=dict)
    watches: list[Watch] = field(default_factory=list)
    distrusted: list[str] = field(default_factory=list)
    clock: SystemClock = field(default_factory=SystemClock)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def start(self, name: str) -> Running:
        """A server, for the first time or again over what it left."""
        command = (SOJOURN, "server", "--config", str(self.folder / f"{name}.yaml"))
        running = await self.stack.enter_async_context(started(*command, folder=self.folder, name=name))
        await running.line("answers node agents at")
        self.servers[name] = running
        return running

    async def at(self, name: str, *words: str) -> Any:
        """What a command answers at the admin socket of a server."""
        socket_path = str(self.folder / "admin" / f"{name}.sock")
        done = await sojourn(*words, "--json", "--socket", socket_path, folder=self.folder)
        assert done.code == 0, done.err
        return json.loads(done.out)

    async def active(self, name: str, kind: str) -> str:
        """The key of that kind a server signs with, as any server shows it."""
        found = await self.at(name, "ca", "show")
        (key,) = [
            one["key_id"]
            for one in found["authorities"]
            if one["server"] == name and one["kind"] == kind and one["state"] == "active"
        ]
        return str(key)

    async def fetch(self, node: str) -> str:
        """The serial of the leaf a new process gets."""
        done = await sojourn(
            "svid", "fetch", "--json", folder=self.folder, environment={"SPIFFE_ENDPOINT_SOCKET": self.address(node)}
        )
        assert done.code == 0, done.err
        return done.out

    def address(self, node: str) -> str:
        """The Workload API of a node agent."""
        return f"unix://{self.folder}/{node}.workload.sock"

    async def hold(self, watch: Watch, node: str) -> None:
        """Hold one stream for ever, as a workload does; once it was given something it never breaks."""
        while True:
            try:
                await self._follow(watch, node)
            except Unavailable:
                if watch.updates:
                    raise
            await self.clock.sleep(0.1)  # the node agent has not heard from its server yet

    async def _follow(self, watch: Watch, node: str) -> None:
        async with WorkloadApiClient(self.address(node)) as api:
            async for context in api.watch_x509():
                watch.svid, watch.bundles = context.svids[0], context.bundles
                watch.updates += 1
                self._judge()
                async with self._changed:
                    self._changed.notify_all()

    def _judge(self) -> None:
        """Every chain somebody holds, under every bundle somebody holds: peers at both nodes speak to one another."""
        now = self.clock.now()
        for holder in self.watches:
            for judge in self.watches:
                if holder.svid is None or not judge.updates or holder.svid.not_after <= now:
                    continue
                try:
                    verify(split(holder.svid.chain_der(), "a chain", 8), judge.bundles, now)
                except Untrusted as error:
                    self.distrusted.append(f"{judge.name} refuses {holder.name}: {error}")

    async def renewed(self, times: int) -> None:
        """Return when each stream was shown as many more leaves."""
        wanted = {watch.name: watch.updates + times for watch in self.watches}
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: all(one.updates >= wanted[one.name] for one in self.watches))

    @property
    def expired(self) -> list[str]:
        """The streams whose leaf is no longer valid."""
        now = self.clock.now()
        return [one.name for one in self.watches if one.svid is None or one.svid.not_after <= now]


@asynccontextmanager
async def several() -> AsyncIterator[Several]:
    """Everything answers, and each stream holds a leaf."""
    async with postgres() as database:
        address = await database.store(secrets.token_hex(8))
        with short_folder() as folder:
            async with AsyncExitStack() as stack:
                found = Several(folder, address, stack, {name: free_port() for name in NAMES})
                write_settings(found)
                for name in NAMES:
                    await found.start(name)
                for name in NAMES:
                    await _node_agent(found, name)
                async with asyncio.TaskGroup() as group:
                    held = [group.create_task(found.hold(watch, watch.name[:3])) for watch in _watches(found)]
                    await found.renewed(1)
                    yield found
                    for task in held:
                        task.cancel()


def _watches(found: Several) -> list[Watch]:
    found.watches += [Watch(f"{name}-{number}") for name in NAMES for number in range(STREAMS)]
    return found.watches


def write_settings(found: Several) -> None:
    """Of every server and node agent, and what they name."""
    folder = found.folder
    make(folder / "admin")
    (folder / "seal").write_text(secrets.token_hex(32))
    (folder / "seal").chmod(0o600)
    rule = {
        "name": "a",
        "nodes": ["node:*"],
        "when": [f"unix:uid:{os.getuid()}"],
        "spiffe_id": "/work",
        "children": True,  # the new processes are started by the one that holds the streams
    }
    (folder / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    for name in NAMES:
        _write(folder / f"{name}.yaml", _server_settings(found, name))
        _write(folder / f"{name}.node.yaml", _node_settings(found, name))


def _server_settings(found: Several, name: str) -> dict[str, Any]:
    folder = found.folder
    return {
        "trust_domain": TRUST_DOMAIN,
        "name": name,
        "listen": {"port": found.ports[name]},
        "admin_socket": str(folder / "admin" / f"{name}.sock"),
        "database": found.database,
        "keys": {"store": "disk", "folder": str(folder / f"{name}.keys"), "seal": f"file:{folder / 'seal'}"},
        "lives": {"x509": "8s", "propagation": "2s"},
        "rules": [str(folder / "rules.yaml")],
    }


def _node_settings(found: Several, name: str) -> dict[str, Any]:
    """Each begins with the server of its own name."""
    folder, order = found.folder, sorted(NAMES, key=lambda other: other != name)
    return {
        "trust_domain": TRUST_DOMAIN,
        "servers": [{"host": "127.0.0.1", "port": found.ports[server]} for server in order],
        "state": str(folder / f"{name}.state"),
        "workload_socket": str(folder / f"{name}.workload.sock"),
        "admin_socket": str(folder / "admin" / f"{name}.node.sock"),
        "join_token": f"file:{folder / f'{name}.token'}",
    }


async def _node_agent(found: Several, name: str) -> None:
    output, socket_path = str(found.folder / f"{name}.token"), str(found.folder / "admin" / f"{name}.sock")
    made = await sojourn(
        "token", "create", "--node", f"node-{name}", "--socket", socket_path, "--output", output, folder=found.folder
    )
    assert made.code == 0, made.err
    command = (SOJOURN, "node-agent", "--config", str(found.folder / f"{name}.node.yaml"))
    running = await found.stack.enter_async_context(started(*command, folder=found.folder, name=f"{name}.node"))
    await running.line("serves the Workload API")


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))  # JSON is YAML
