"""Attestor server, node agent and broker as three processes on this machine, each from its settings file.

All run under one uid here, so the broker is told apart from agents by the path of its executable: a copy of the
interpreter in the folder of the test. In production it has a user of its own (config/attestor-server.yaml).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.client.broker import Broker
from ca.runtime.places import make
from journeys.processes import ROOT, SOJOURN, Running, python, short_folder, sojourn, started

TRUST_DOMAIN = "three.test"
_RULES = """\
rules:
  - name: agents
    nodes: ["node:name:web-1"]
    when: ["unix:uid:{uid}"]
    spiffe_id: /agents/{{unix.uid}}
    bind: process
"""


@dataclass(kw_only=True)
class Machine:
    """The processes, and how to start more of them."""

    folder: Path
    server: Running
    broker: Running

    @property
    def broker_admin(self) -> Path:
        """The operators' socket of the broker."""
        return self.folder / "admin" / "broker.sock"

    @property
    def agent_environment(self) -> Mapping[str, str]:
        """What an agent is told."""
        address = (self.folder / "broker.address").read_text()
        return {"SPIFFE_ENDPOINT_SOCKET": f"unix://{self.folder}/workload.sock", "SOJOURN_BROKER": address}

    def operator(self) -> AbstractAsyncContextManager[Broker]:
        """The operators' socket of the broker."""
        return Broker.on_socket(self.broker_admin)

    def agent(self, name: str) -> AbstractAsyncContextManager[Running]:
        """One more agent."""
        return started(*python("agent.py"), folder=self.folder, name=name, environment=self.agent_environment)

    @asynccontextmanager
    async def node_agent(self) -> AsyncIterator[Running]:
        """The node agent, for the first time or again on the same state."""
        async with _node_agent(self.folder) as running:
            yield running


@asynccontextmanager
async def three() -> AsyncIterator[tuple[Machine, Running]]:
    """All three answer; the node agent apart, because tests kill it."""
    with short_folder() as folder:
        async with identity_side(folder) as (server, node_agent, port), _broker(folder, port) as broker:
            yield Machine(folder=folder, server=server, broker=broker), node_agent


@asynccontextmanager
async def identity_side(folder: Path) -> AsyncIterator[tuple[Running, Running, int]]:
    """Attestor server and node agent, and the server's port."""
    make(folder / "admin")
    async with _server(folder) as (server, port):
        await _token(folder)
        write_settings(folder, "node-agent", _node_agent_settings(folder, port))
        async with _node_agent(folder) as node_agent:
            yield server, node_agent, port


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[tuple[Running, int]]:
    (folder / "rules.yaml").write_text(_RULES.format(uid=os.getuid()))
    settings = write_settings(
        folder,
        "server",
        {
            "trust_domain": TRUST_DOMAIN,
            "listen": {"port": 0},
            "admin_socket": str(folder / "admin" / "server.sock"),
            "database": f"sqlite:{folder / 'server.db'}",
            "rules": [str(folder / "rules.yaml")],
            "parts": [
                {
                    "name": "broker",
                    "nodes": ["node:name:web-1"],
                    "when": [f"unix:uid:{os.getuid()}", f"unix:path:{folder / 'broker-python'}"],
                }
            ],
        },
    )
    async with started(SOJOURN, "server", "--config", settings, folder=folder, name="server") as running:
        line = await running.line("answers node agents at")
        yield running, int(line.rpartition(":")[2])


async def _token(folder: Path) -> None:
    """By the command, as an operator does it."""
    socket, output = str(folder / "admin" / "server.sock"), str(folder / "join.token")
    made = await sojourn("token", "create", "--node", "web-1", "--socket", socket, "--output", output, folder=folder)
    assert made.code == 0, made.err


def _node_agent_settings(folder: Path, port: int) -> dict[str, Any]:
    return {
        "trust_domain": TRUST_DOMAIN,
        "server": {"host": "127.0.0.1", "port": port},
        "state": str(folder / "node"),
        "workload_socket": str(folder / "workload.sock"),
        "admin_socket": str(folder / "admin" / "node.sock"),
        "join_token": f"file:{folder / 'join.token'}",
    }


@asynccontextmanager
async def _node_agent(folder: Path) -> AsyncIterator[Running]:
    command = (SOJOURN, "node-agent", "--config", str(folder / "node-agent.yaml"))
    async with started(*command, folder=folder, name="node-agent") as running:
        await running.line("serves the Workload API")
        yield running


@asynccontextmanager
async def _broker(folder: Path, port: int) -> AsyncIterator[Running]:
    settings = {
        "listen": {"port": 0},
        "admin_socket": str(folder / "admin" / "broker.sock"),
        "workload_api": f"unix://{folder / 'workload.sock'}",
        "attestor": {"host": "127.0.0.1", "port": port},
        "database": f"sqlite:{folder / 'broker.db'}",
    }
    async with broker_at(folder, "broker", settings) as running:
        line = await running.line("the broker answers at")
        (folder / "broker.address").write_text(line.rpartition(" ")[2])
        yield running


@asynccontextmanager
async def broker_at(
    folder: Path, name: str, settings: dict[str, Any], environment: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """A broker of these settings, by the interpreter it is told apart by; it may not answer yet."""
    interpreter = folder / "broker-python"
    if not interpreter.exists():
        shutil.copy(Path(sys.executable).resolve(), interpreter)
    path = write_settings(folder, name, settings)
    home = {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = (str(interpreter), "-m", "broker", "broker", "--config", path)
    async with started(*command, folder=folder, name=name, environment={**home, **(environment or {})}) as running:
        yield running


def write_settings(folder: Path, name: str, content: dict[str, Any]) -> str:
    """A file of settings."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content, indent=2))  # JSON is YAML
    return str(path)
