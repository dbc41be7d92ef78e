"""From a peer to selectors, with real processes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestor.instance import Strength
from attestor.methods.workload.proc import CallerGone
from attestor.methods.workload.protocol import Subject
from attestor.methods.workload.unix import UnixSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.peer import Findings, peer_of
from attestor.selector import Selector
from fakes.caller import Caller, caller

OTHER = 4321


@pytest.fixture
def source() -> Iterator[UnixSource]:
    """The source under test, and its threads ended."""
    one = UnixSource()
    yield one
    one.close()


async def attest(one: Caller, source: UnixSource) -> Findings:
    """What is found out about `one`."""
    peer = peer_of(one.connection)
    try:
        return await Attestor([source]).attest(peer)
    finally:
        peer.close()


async def test_strength_says_whether_the_user_is_a_boundary(tmp_path: Path, source: UnixSource) -> None:
    """The node agent's own user can be read by the agent and the agent by it; another user's can't."""
    with caller(tmp_path) as one:
        assert (await attest(one, source)).strength is Strength.SHARED_UID
    with caller(tmp_path, user=OTHER) as one:
        assert (await attest(one, source)).strength is Strength.OWN_UID
        peer = peer_of(one.connection)
        shared = await Attestor([source], shared_uids=[OTHER]).attest(peer)
        peer.close()
        weak = peer_of(one.connection, option=9999)
        assert (await Attestor([source]).attest(weak)).strength is Strength.WEAK_PEER
        weak.close()
    assert shared.strength is Strength.SHARED_UID


async def test_only_the_node_agent_itself_is_self(source: UnixSource) -> None:
    """`unix:self` is the same process by number and start time, not the same user or the same program."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
        found = await Attestor([source]).attest(peer)
        peer.close()
    assert Selector("unix", "self:true") in found.selectors


async def test_a_process_that_becomes_another_program_meanwhile_is_refused(tmp_path: Path) -> None:
    """Start time, user and executable are compared before and after."""
    with caller(tmp_path, then="os.read(0, 1); os.execv('/bin/sh', ['sh', '-c', 'echo; read x'])") as one:

        class Slow:
            async def selectors(self, subject: Subject) -> frozenset[Selector]:
                one.tell()
                await asyncio.get_running_loop().run_in_executor(None, one.hear)
                return frozenset()

        peer = peer_of(one.connection)
        with pytest.raises(CallerGone, match="became another program"):
            await Attestor([Slow()]).attest(peer)
        peer.close()


async def test_a_process_that_dies_meanwhile_is_refused(tmp_path: Path, source: UnixSource) -> None:
    """No selector is believed of a process that is no more."""
    with caller(tmp_path) as one:

        class Slow:
            async def selectors(self, subject: Subject) -> frozenset[Selector]:
                one.kill()
                return frozenset()

        peer = peer_of(one.connection)
        with pytest.raises(CallerGone):
            await Attestor([source, Slow()]).attest(peer)
        peer.close()


async def test_a_process_that_changed_its_user_is_refused(tmp_path: Path, source: UnixSource) -> None:
    """A socket connected as root says nothing about what its holder is now."""
    with caller(tmp_path, then=f"os.read(0, 1); os.setuid({OTHER}); os.write(1, b'u'); os.read(0, 1)") as one:
        one.tell()
        one.hear()
        with pytest.raises(CallerGone, match="no longer the one"):
            await attest(one, source)


async def test_parents_are_named(tmp_path: Path, source: UnixSource) -> None:
    """The chain begins with who started it."""
    with caller(tmp_path) as one:
        lineage = (await attest(one, source)).lineage
    assert lineage[0][0] == os.getpid()
