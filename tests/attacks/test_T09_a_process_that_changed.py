"""T9: a process that became another program is not served with what it was given before.

The attacker is what comes after: a root launcher fetched its identity, dropped its rights and became an agent, and the
way to the attestor server is cut, so that nobody can be asked what the agent may have.
"""

from __future__ import annotations

import asyncio
import os
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
