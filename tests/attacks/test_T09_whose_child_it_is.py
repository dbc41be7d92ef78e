"""T9: a sub-agent is told from a shell by the agent that started it, and nobody becomes one by looking like it.

The rules give `/agent` to whoever is nobody's child, `/agent/sub` to who descends from it, and to no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from attestor.errors import NotEntitled
from attestor.node_agent.peer import peer_of
from attestor.selector import Selector, texts
from attestor.wire.attestation import Attestation, Identity
from fakes.caller import Caller, caller, has_ended
from fakes.family import BY_A_SHELL, RUN_AWAY, STRAIGHT, Child, parent
from fakes.issuer import identity
from fakes.workload import Agent, workload_api

OF_AGENT = Selector("ancestor", "id:spiffe://example.org/agent")
BY_AGENT = Selector("parent", "id:spiffe://example.org/agent")


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent with rules for an agent and its sub-agents."""
    async with workload_api(tmp_path) as one:
        one.issuer.given = rules(one, first=None)
        yield one


def rules(agent: Agent, *, first: int | None):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Of the processes that descend from nobody only `first` is the agent; without it any is."""
    authority = agent.issuer.authority

    def given(of: Attestation) -> tuple[Identity, ...]:
        if OF_AGENT in of.selectors:
            return (identity(authority.id("/agent/sub")),)
        pids = {held.name.pid for held in agent.holdings if held.instance == of.instance}
        return (identity(authority.id("/agent")),) if first is None or first in pids else ()

    return given


async def given(agent: Agent, one: Caller | Child) -> list[str]:
    """The paths it gets; asked of the server anew, to which these are all one kind of process."""
    agent.issuer.rules_version += "+"
    async with agent.renewal.admitted(peer_of(one.connection)) as held:
        return [spiffe_id.path for spiffe_id in held.leaves]


@pytest.mark.parametrize(("way", "directly"), [(STRAIGHT, True), (BY_A_SHELL, False)])
async def test_what_an_agent_starts_is_known_as_its_own(
    agent: Agent, tmp_path: Path, way: str, *, directly: bool
) -> None:
    """Through a shell too, which is told apart: it is a child, and what it starts is a grandchild."""
    with parent(tmp_path, way) as agents:
        assert await given(agent, agents.caller) == ["/agent"]
        with agents.child() as sub:
            assert await given(agent, sub) == ["/agent/sub"]
            asked = agent.issuer.resolved[-1]
            assert (OF_AGENT in asked.selectors, BY_AGENT in asked.selectors) == (True, directly)


async def test_a_shell_s_child_is_no_agent_s(agent: Agent, tmp_path: Path) -> None:
    """The same program, started by a process that was given nothing."""
    with parent(tmp_path, STRAIGHT) as shell, shell.child() as one:
        agent.issuer.given = rules(agent, first=-1)
        with pytest.raises(NotEntitled):
            await given(agent, one)
        assert not {"ancestor", "parent"} & {each.type for each in agent.issuer.resolved[-1].selectors}


async def test_who_runs_away_from_its_parent_is_nobody_s_child(agent: Agent, tmp_path: Path) -> None:
    """A double fork loses the lineage: what asks for an ancestor is not given, as if it had been started elsewhere."""
    with parent(tmp_path, RUN_AWAY) as agents:
        agent.issuer.given = rules(agent, first=agents.caller.pid)
        assert await given(agent, agents.caller) == ["/agent"]
        with agents.child() as runaway, pytest.raises(NotEntitled):
            await given(agent, runaway)


async def test_a_parent_that_becomes_the_agent_s_program_makes_no_sub_agent(agent: Agent, tmp_path: Path) -> None:
    """The game that works with paths: fork, then exec the right program. It was not given the identity."""
    exec_agent = "os.execv('/bin/sleep', ['sleep', '60'])"
    with caller(tmp_path) as real, parent(tmp_path, STRAIGHT, after=exec_agent) as impostor, impostor.child() as one:
        agent.issuer.given = rules(agent, first=real.pid)
        assert await given(agent, real) == ["/agent"]
        async with asyncio.timeout(60):
            while Path(f"/proc/{impostor.caller.pid}/exe").resolve() != Path("/bin/sleep").resolve():
                await agent.clock.settle()
        with pytest.raises(NotEntitled):
            await given(agent, one)


async def test_a_sub_agent_outlives_its_agent_by_no_leaf(agent: Agent, tmp_path: Path) -> None:
    """On its open stream it is told so at the next look."""
    with parent(tmp_path, STRAIGHT) as agents:
        agent.issuer.given = rules(agent, first=agents.caller.pid)
        await given(agent, agents.caller)
        with agents.child() as sub:
            async with agent.renewal.admitted(peer_of(sub.connection)) as held:
                assert [spiffe_id.path for spiffe_id in held.leaves] == ["/agent/sub"]
                agents.caller.kill()
                assert has_ended(agents.caller.pid)
                await agent.clock.until(lambda: len(agent.holdings) == 1)
                await agent.tick()
                assert (held.leaves, held.identities) == ({}, ())


async def test_an_agent_that_was_ended_has_no_sub_agents(agent: Agent, tmp_path: Path) -> None:
    """Its process goes on, its instance does not."""
    with parent(tmp_path, STRAIGHT) as agents:
        agent.issuer.given = rules(agent, first=agents.caller.pid)
        await given(agent, agents.caller)
        agent.holdings.bar(agent.holdings.live().instances)
        with agents.child() as sub, pytest.raises(NotEntitled):
            await given(agent, sub)
        assert "ancestor" not in " ".join(texts(agent.issuer.resolved[-1].selectors))


async def test_a_number_used_again_is_no_parent(agent: Agent, tmp_path: Path) -> None:
    """Whoever began at another moment is another process, though its end was not seen yet."""
    with parent(tmp_path, STRAIGHT) as agents:
        await given(agent, agents.caller)
        with agents.child() as sub:
            async with agent.renewal.admitted(peer_of(sub.connection)) as held:
                assert held.findings is not None
                (pid, start), *_ = held.findings.lineage
                assert [one.name.pid for one in agent.holdings.parents(held.findings)] == [pid]
                later = replace(held.findings, lineage=((pid, start + 1),))
                assert agent.holdings.parents(later) == []
                assert agent.holdings.inherited(later) == frozenset()
