"""A real attestor server and a real node agent in this process, as `sojourn up` runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attestor.node_agent import serve as node_agent
from attestor.node_agent.settings import NodeAgentSettings, ServerAddress
from attestor.server import serve as attestor_server
from attestor.server.serve import Server
from attestor.server.settings import ServerSettings
from ca.runtime.clock import SystemClock
from ca.runtime.process import Readiness
from ca.runtime.secret import Secret
from ca.spiffe.id import TrustDomain

CLOCK = SystemClock()
DOMAIN = TrustDomain.parse("example.org")
RULES = """
rules:
  - name: agent
    nodes: [node:name:web-1]
    when: [unix:uid:0]
    spiffe_id: /agent
    bind: process
"""


@asynccontextmanager
async def server(folder: Path, **changes: Any) -> AsyncIterator[Server]:
    """An attestor server with one rule, its state in `folder`."""
    rules = folder / "rules.yaml"
    if not rules.exists():
        rules.write_text(RULES)
    settings = ServerSettings(
        **{
            "trust_domain": DOMAIN,
            "listen": {"port": 0},
            "admin_socket": folder / "server.sock",
            "database": f"sqlite:{folder / 'server.db'}",
            "rules": (rules,),
            **changes,
        }
    )
    async with attestor_server.serve(settings, CLOCK, Readiness()) as one:
        yield one


def settings(folder: Path, port: int, **changes: Any) -> NodeAgentSettings:
    """A node agent in `folder`."""
    return NodeAgentSettings(
        **{
            "trust_domain": DOMAIN,
            "server": ServerAddress(port=port),
            "state": folder / "node",
            "workload_socket": folder / "run" / "workload.sock",
            "admin_socket": folder / "admin" / "node.sock",
            **changes,
        }
    )


@asynccontextmanager
async def agent(
    folder: Path, port: int, token: Secret | None = None, **changes: Any
) -> AsyncIterator[NodeAgentSettings]:
    """It runs, and has heard from the server."""
    readiness, chosen = Readiness(), settings(folder, port, **changes)
    async with node_agent.serve(chosen, CLOCK, readiness, join_token=token):
        async with asyncio.timeout(60):
            await readiness.until_ready()
        yield chosen


@asynccontextmanager
async def both(folder: Path, **changes: Any) -> AsyncIterator[tuple[Server, NodeAgentSettings]]:
    """A server, and a node agent that joined it as `web-1`."""
    async with server(folder, **changes) as one:
        token = await one.issue_token("web-1")
        async with agent(folder, one.address[1], Secret(token.reveal())) as two:
            yield one, two


def address(chosen: NodeAgentSettings) -> str:
    """For SPIFFE_ENDPOINT_SOCKET."""
    return f"unix://{chosen.workload_socket}"
