"""Server, node agent and client in one: from a join token to the end of a killed process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from attestor.client.source import X509Source
from attestor.client.tasks import TaskLink
from attestor.instance import State
from attestor.node_agent.serve import serve as serve_node_agent
from attestor.node_agent.settings import NodeAgentSettings, ServerAddress
from attestor.server.serve import Server, serve
from ca.runtime.clock import SystemClock
from ca.runtime.process import Readiness
from ca.runtime.secret import Reference
from fakes.node_client import server_settings

ROOT = Path(__file__).resolve().parents[3]
RULES = f"""\
rules:
  - {{name: own, nodes: ["node:name:n"], when: ["unix:uid:{os.getuid()}"], spiffe_id: /agent, bind: process}}
"""
AGENT = """\
import asyncio, sys
from attestor.client.source import X509Source

async def main():
    async with X509Source.open(sys.argv[1]) as source:
        async for _ in source.changed():
            print(source.svid.id, source.svid.instance, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Server, str]]:
    """A server and a node agent that joined it; yields the Workload API's address too."""
    (folder / "rules.yaml").write_text(RULES)
    async with serve(server_settings(folder), SystemClock(), Readiness()) as server:
        token = folder / "token"
        token.write_text((await server.issue_token("n")).reveal())
        readiness = Readiness()
        settings = NodeAgentSettings(
            trust_domain=server.trust_domain,
            server=ServerAddress(host=server.address[0], port=server.address[1]),
            state=folder / "node",
            workload_socket=folder / "workload.sock",
            admin_socket=folder / "node.sock",
            join_token=Reference("file", str(token)),
        )
        async with serve_node_agent(settings, SystemClock(), readiness):
            await readiness.until_ready()
            yield server, f"unix://{folder}/workload.sock"


@asynccontextmanager
async def agent(endpoint: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str]]:
    """A process of its own that holds an identity; yields its SPIFFE ID and instance."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, endpoint, stdout=pipe, cwd=ROOT)
    try:
        assert process.stdout is not None
        spiffe_id, instance = (await process.stdout.readline()).decode().split()
        yield process, spiffe_id, instance
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_process_is_told_to_the_broker(tmp_path: Path) -> None:
    """Our own part is known as itself, an agent by its uid; `kill -9` reaches the broker's stream as an end."""
    async with asyncio.timeout(60), running(tmp_path) as (server, endpoint), X509Source.open(endpoint) as source:
        assert str(source.svid.id) == "spiffe://example.org/sojourn/broker"
        async with agent(endpoint) as (process, spiffe_id, instance):
            assert spiffe_id == "spiffe://example.org/agent"
            async with TaskLink.open(source, *server.address) as link:
                assert (await link.bind(instance)).state is State.LIVE
                process.kill()
                async for change in link.changes():
                    if change.instance == instance and change.state is State.ENDED:
                        break


async def test_new_rules_reach_an_open_stream(tmp_path: Path) -> None:
    """A rule file is replaced: whoever holds a stream has the new identity on it, without asking."""
    async with asyncio.timeout(60), running(tmp_path) as (_, endpoint), agent(endpoint) as (process, _id, instance):
        (tmp_path / "rules.yaml").write_text(RULES.replace("/agent", "/renamed"))
        assert process.stdout is not None
        async for line in process.stdout:
            if line.decode().split() == ["spiffe://example.org/renamed", instance]:
                break
