"""Two whole servers over one PostgreSQL: streams held at one hear at once what the other committed.

A beat comes once a minute here. What arrives sooner was carried by the bell, or found by one of the servers' own looks
at authorities and lists; the end of an instance that no list names is carried by the bell alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.client.source import X509Source
from attestor.client.tasks import TaskLink
from attestor.instance import State
from attestor.node_agent.settings import NodeAgentSettings
from attestor.rules.model import ANY_NODE, Condition
from attestor.selector import Selector
from attestor.server.serve import Server
from attestor.server.settings import Lives, OwnPart
from attestor.server.store.nodes import NodeState
from ca.profiles.prepared import Kind
from ca.runtime.secret import Secret
from fakes.identity_side import CLOCK, RULES, address, agent, server
from fakes.stores import postgres_address

BROKER = OwnPart(
    name="broker",
    nodes=Condition.all_of([ANY_NODE]),
    when=Condition.all_of([Selector.parse("unix:self:true")]),
)
AGENT = """
import asyncio, sys
from attestor.client.source import X509Source

async def main():
    async with X509Source.open(sys.argv[1]) as source:
        print(source.svid.instance, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Two:
    """Both, and a node that is at the other."""

    one: Server
    other: Server
    node: NodeAgentSettings


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """The second server begins when the first runs."""
    (tmp_path / "rules.yaml").write_text(RULES.replace("    bind: process\n", ""))
    store, lives = await postgres_address(tmp_path), Lives(propagation=timedelta(0))
    quiet = {
        "beat": timedelta(seconds=60),
        "observe_grace": timedelta(seconds=200),
        "observe_limit": timedelta(seconds=400),
    }
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(
                server(
                    tmp_path,
                    database=store,
                    name=name,
                    admin_socket=tmp_path / f"{name}.sock",
                    lives=lives,
                    parts=(BROKER,),
                    **quiet,
                )
            )
            for name in ("one", "other")
        ]
        token = Secret((await found[1].issue_token("web-1")).reveal())
        node = await stack.enter_async_context(agent(tmp_path, found[1].address[1], token))
        yield Two(found[0], found[1], node)


@asynccontextmanager
async def _process(chosen: NodeAgentSettings) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process with an identity; yields its instance too."""
    one = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, address(chosen), stdout=-1)
    assert one.stdout is not None
    try:
        yield one, (await one.stdout.readline()).decode().strip()
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()


async def test_the_end_of_a_process_at_one_server_is_told_by_the_other(two: Two) -> None:
    """A broker follows any of them. Nothing binds the instance, so no list changes and the bell has to carry it."""
    async with (
        asyncio.timeout(30),
        X509Source.open(address(two.node), CLOCK) as source,
        TaskLink.open(source, *two.one.address, silence=1000) as link,
        _process(two.node) as (process, instance),
    ):
        while not link.connected:
            await CLOCK.sleep(0.01)
        link.watch([instance])
        process.kill()
        async for change in link.changes():
            if (change.instance, change.state) == (instance, State.ENDED):
                break


async def test_a_ban_by_one_server_reaches_a_node_that_is_at_the_other(two: Two) -> None:
    """Its identity is forgotten."""
    identity = two.node.state / "identity.json"
    async with asyncio.timeout(30):
        while not identity.exists():
            await CLOCK.sleep(0.01)
        await two.one._parts.admission.send_away("web-1", NodeState.BANNED, CLOCK.now())
        while identity.exists():
            await CLOCK.sleep(0.01)


async def test_an_authority_made_by_one_server_is_in_the_bundles_of_the_other(two: Two) -> None:
    """A workload at the other hears of it on the stream it holds."""
    async with asyncio.timeout(30), X509Source.open(address(two.node), CLOCK) as source:
        before = source.bundles
        await two.one._parts.rotation.rotate(Kind.ROOT, CLOCK.now())
        async for _ in source.changed():
            if source.bundles != before:
                break


async def test_servers_that_begin_at_the_same_moment_over_an_empty_store_both_come_up(tmp_path: Path) -> None:
    """One makes the tables, one is the first of the trust domain; the other waits for its turn."""
    store = await postgres_address(tmp_path)

    async def begin(stack: AsyncExitStack, name: str) -> Server:
        lives = Lives(propagation=timedelta(seconds=1))
        one = server(tmp_path, database=store, name=name, admin_socket=tmp_path / f"{name}.sock", lives=lives)
        return await stack.enter_async_context(one)

    async with AsyncExitStack() as first, AsyncExitStack() as second, asyncio.timeout(60):
        both = await asyncio.gather(begin(first, "one"), begin(second, "other"))
        assert len({one.root_key_hash for one in both}) == 2
        while any(len(one._parts.authority.bundle(CLOCK.now()).x509_authorities) != 2 for one in both):
            await CLOCK.sleep(0.01)
