"""T9: a process that became another program is not served with what it was given before.

The attacker is what comes after: a root launcher fetched its identity, dropped its rights and became an agent, and the
way to the attestor server is cut, so that nobody can be asked what the agent may have.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestor.node_agent.peer import peer_of
from ca.errors import Unavailable
from fakes.caller import Caller, caller
from fakes.issuer import identity
from fakes.workload import Agent, workload_api


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent."""
    async with workload_api(tmp_path) as one:
        yield one


async def became(one: Caller, program: str) -> None:
    """Wait until the process runs `program`."""
    one.tell()
    async with asyncio.timeout(60):
        while Path(f"/proc/{one.pid}/exe").resolve() != Path(program).resolve():
            await asyncio.get_running_loop().run_in_executor(None, os.sched_yield)


async def test_what_it_was_given_is_not_its_successor_s_while_nobody_can_be_asked(agent: Agent, tmp_path: Path) -> None:
    """Neither leaf nor token; once the server answers it gets what the new program is entitled to."""
    authority = agent.issuer.authority
    with caller(tmp_path, then="os.read(0, 1); os.execv('/bin/sleep', ['sleep', '60'])") as one:
        async with agent.renewal.admitted(peer_of(one.connection)) as held:
            await agent.renewal.token(held, authority.id("/agent"), ("a",))
        agent.issuer.down = True
        async with agent.renewal.admitted(peer_of(one.connection)) as held:
            assert held.leaves  # as long as it is what it was
        await became(one, "/bin/sleep")
        with pytest.raises(Unavailable):
            async with agent.renewal.admitted(peer_of(one.connection)):
                pass
        assert [(held.leaves, held.tokens, held.identities) for held in agent.holdings] == [({}, {}, ())]
        agent.issuer.down = False
        agent.issuer.given = lambda _: (identity(authority.id("/sleeper")),)
        async with agent.renewal.admitted(peer_of(one.connection)) as held:
            assert list(held.leaves) == [authority.id("/sleeper")]


async def test_an_answer_about_what_it_was_is_not_about_what_it_is(agent: Agent, tmp_path: Path) -> None:
    """A question on its way while the process changes settles nothing."""
    authority = agent.issuer.authority
    with caller(tmp_path, then="os.read(0, 1); os.execv('/bin/sleep', ['sleep', '60'])") as one:
        async with agent.renewal.admitted(peer_of(one.connection)) as held:
            agent.issuer.rules_version = "2"
            ask, asked, go = agent.issuer.resolve, asyncio.Event(), asyncio.Event()

            async def slow(attestations):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                answer = await ask(attestations)
                asked.set()
                await go.wait()
                return answer

            agent.issuer.resolve = slow  # type: ignore[method-assign]
            async with asyncio.TaskGroup() as group:
                group.create_task(agent.tick())
                await asked.wait()
                agent.issuer.resolve = ask  # type: ignore[method-assign]
                agent.issuer.given = lambda _: (identity(authority.id("/sleeper")),)
                await became(one, "/bin/sleep")
                async with agent.renewal.admitted(peer_of(one.connection)):
                    pass
                go.set()
            assert [one.id for one in held.identities] == [authority.id("/sleeper")]
            assert list(held.leaves) == [authority.id("/sleeper")]


HOLDS_A_STREAM = """
import asyncio, os, sys
from grpclib.client import Channel
from grpclib.const import Cardinality
from attestor._proto import workload_pb2 as pb
from attestor.wire import workload as wire

async def main():
    channel = Channel(path=sys.argv[1])
    call = channel.request(
        wire.FETCH_X509_SVID, Cardinality.UNARY_STREAM, pb.X509SVIDRequest, pb.X509SVIDResponse,
        metadata=[wire.SECURITY_HEADER],
    )
    async with call as stream:
        await stream.send_message(pb.X509SVIDRequest(), end=True)
        await stream.recv_message()
        connection = (await channel.__connect__()).connection._transport.get_extra_info("socket")
        os.set_inheritable(connection.fileno(), True)
        print("held", flush=True)
        os.read(0, 1)
        os.execv("/bin/sleep", ["sleep", "60"])

asyncio.run(main())
"""


@pytest.mark.clause("WL-18")
async def test_an_open_stream_is_not_its_successor_s(agent: Agent) -> None:
    """WL-18: the program is looked at again before each message, though process, connection and rules are the same."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS_A_STREAM, str(agent.path), stdin=-1, stdout=-1
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.readline() == b"held\n"
        (held,) = agent.holdings
        process.stdin.write(b"x")
        await agent.clock.until(lambda: Path(f"/proc/{process.pid}/exe").resolve() == Path("/bin/sleep").resolve())
        assert held.users == 1
        await agent.clock.advance(31 * 60)
        await agent.tick()
        await agent.clock.until(lambda: held.users == 0)
        assert (held.identities, held.leaves, held.findings) == ((), {}, None)
        assert held.is_alive()
    finally:
        process.kill()
        await process.communicate()
