"""T 9: the same user is the same agent. What the kernel shows is refused; what it doesn't show is said aloud.

The boundary is the user. These tests hold the node agent to both halves: it refuses an inherited connection of a dead
process, a process that becomes another one while it is looked at, a path forged by a mount, and it reports
`shared-uid` wherever a sibling could have taken the identity anyway.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestor.client.errors import NoIdentity
from attestor.client.workload_api import WorkloadApiClient
from attestor.instance import Strength
from attestor.methods.workload.proc import CallerGone
from attestor.methods.workload.unix import UnixSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.peer import peer_of
from attestor.selector import texts
from attestor.wire.attestation import Attestation
from fakes.caller import caller, has_ended
from fakes.workload import Agent, workload_api

# The parent only connects; its child inherits the connection and speaks on it, each time it is told to.
INHERITED = """
import asyncio, os, signal, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
if os.fork():
    signal.pause()

from grpclib.client import Channel
from attestor.client.workload_api import WorkloadApiClient

class Inherited(Channel):
    async def _create_connection(self):
        return (await self._loop.create_unix_connection(self._protocol_factory, sock=connection))[1]

async def main():
    client = WorkloadApiClient("unix://" + sys.argv[1])
    client._channel = Inherited(path=sys.argv[1])
    print(os.getpid(), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        try:
            print("fetched", (await client.fetch_x509()).svids[0].instance, flush=True)
        except Exception as error:
            print("refused", type(error).__name__, error, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent."""
    async with workload_api(tmp_path) as one:
        yield one


async def test_a_child_can_not_speak_for_its_dead_parent(agent: Agent) -> None:
    """While the connecter lives its child speaks in its name; once it is dead the connection is worth nothing."""
    arguments = [sys.executable, "-c", INHERITED, str(agent.path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        child = int(await said(parent))
        try:
            assert (await said(parent, "go")).startswith("fetched ")
            assert [held.name.pid for held in agent.holdings] == [parent.pid]
            parent.kill()
            parent.wait(60)
            await agent.clock.until(lambda: len(agent.holdings) == 0)
            answer = await said(parent, "go")
            assert answer.startswith("refused NoIdentity"), answer
            assert f"the process {parent.pid} that opened this connection has ended" in answer
        finally:
            os.kill(child, 9)
    assert has_ended(child)


async def said(process: subprocess.Popen[str], line: str | None = None) -> str:
    """Its next line, after it was told `line`."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    async with asyncio.timeout(60):
        return (await asyncio.get_running_loop().run_in_executor(None, process.stdout.readline)).strip()


async def test_a_held_stream_of_a_dead_process_gets_no_further_message(agent: Agent, tmp_path: Path) -> None:
    """Before every message, not only the first: the stream ends when its process does."""
    with caller(tmp_path) as one:
        async with agent.renewal.admitted(peer_of(one.connection)) as held:
            held.check()
            one.kill()
            with pytest.raises(CallerGone):
                held.check()


async def test_siblings_of_one_user_are_told_apart_by_nothing_and_reported_so(agent: Agent, tmp_path: Path) -> None:
    """Two processes of the node agent's user have the same selectors: policy gets `shared-uid` to judge by."""
    with caller(tmp_path) as one, caller(tmp_path) as other:
        async with agent.renewal.admitted(peer_of(one.connection)), agent.renewal.admitted(peer_of(other.connection)):
            pass
    first, second = (item.attestation for item in agent.issuer.signed)
    assert first.selectors == second.selectors
    assert first.strength is second.strength is Strength.SHARED_UID
    assert first.instance != second.instance


async def test_another_user_is_a_boundary(agent: Agent, tmp_path: Path) -> None:
    """And says so."""
    seen: list[Attestation] = []
    agent.issuer.given = lambda attestation: seen.append(attestation) or ()  # type: ignore[func-returns-value]
    with caller(tmp_path, user=4321) as one, pytest.raises(Exception, match="no identity rule"):
        async with agent.renewal.admitted(peer_of(one.connection)):
            pass
    assert seen[0].strength is Strength.OWN_UID


async def test_a_process_that_execs_the_right_program_while_it_is_looked_at_is_refused(tmp_path: Path) -> None:
    """The exec is seen when it happens between the two looks; one before the first look is the documented limit."""
    with caller(tmp_path, then="os.read(0, 1); os.execv('/bin/sleep', ['sleep', '60'])") as one:
        source = UnixSource()

        class Watching(UnixSource):
            """Lets the exec happen in the middle."""

            async def selectors(self, subject):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                found = await super().selectors(subject)
                one.tell()
                exe = Path(f"/proc/{one.pid}/exe")
                while exe.resolve().name != Path("/bin/sleep").resolve().name:
                    await asyncio.get_running_loop().run_in_executor(None, os.sched_yield)
                return found

        watching = Watching()
        peer = peer_of(one.connection)
        with pytest.raises(CallerGone, match="became another program"):
            await Attestor([watching]).attest(peer)
        after = texts((await Attestor([source]).attest(peer)).selectors)
        assert any("sleep" in text for text in after)  # the limit: whoever execs first is what it execed
        peer.close()
        source.close()
        watching.close()


async def test_only_the_node_agents_own_process_is_self(agent: Agent, tmp_path: Path) -> None:
    """A sibling with the same program and user is not: the parts of `up` can't be imitated by path or uid."""
    source = UnixSource()
    with caller(tmp_path) as one:
        peer = peer_of(one.connection)
        found = texts((await Attestor([source]).attest(peer)).selectors)
        peer.close()
    source.close()
    assert "unix:self:true" not in found
    seen: list[str] = []
    agent.issuer.given = lambda attestation: seen.extend(texts(attestation.selectors)) or ()  # type: ignore[func-returns-value]
    async with WorkloadApiClient(agent.address) as client:
        with pytest.raises(NoIdentity):
            await client.fetch_x509()
    assert "unix:self:true" in seen
