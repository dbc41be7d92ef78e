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
from attestor.methods.workload.protocol import CantSay, Subject
from attestor.methods.workload.unix import UnixSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.peer import SO_PEERPIDFD, Findings, peer_of
from attestor.selector import Selector
from ca.errors import Unavailable
from fakes.caller import Caller, caller
from fakes.cgroups import cgroup, move

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
            name = "unix"

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
            name = "unix"

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


async def test_a_source_that_cannot_say_leaves_the_others_standing(tmp_path: Path, source: UnixSource) -> None:
    """Fewer selectors never give more; the reason is kept for `explain`, the outcome is counted."""

    class Torn:
        name = "systemd"

        async def selectors(self, subject: Subject) -> frozenset[Selector]:
            raise CantSay("its cgroups name more than one unit")

    counted: list[tuple[str, str]] = []
    with caller(tmp_path) as one:
        peer = peer_of(one.connection)
        found = await Attestor([source, Torn()], count=lambda *told: counted.append(told)).attest(peer)
        peer.close()
    assert found.unsaid == (("systemd", "its cgroups name more than one unit"),)
    assert Selector("unix", f"uid:{os.getuid()}") in found.selectors
    assert sorted(counted) == [("systemd", "cant-say"), ("unix", "said")]


async def test_a_source_that_can_not_ask_refuses_the_process_for_now(tmp_path: Path, source: UnixSource) -> None:
    """Half of the facts could give half of an identity; only people are shown what there is."""

    class Hanging:
        name = "k8s"

        async def selectors(self, subject: Subject) -> frozenset[Selector]:
            raise Unavailable("the kubelet does not answer")

    with caller(tmp_path) as one:
        peer = peer_of(one.connection)
        attestor = Attestor([source, Hanging()])
        with pytest.raises(Unavailable):
            await attestor.attest(peer)
        shown = await attestor.attest(peer, for_people=True)
        peer.close()
    assert shown.unsaid == (("k8s", "the kubelet does not answer"),)
    assert shown.selectors


async def test_a_process_moved_to_another_cgroup_meanwhile_is_refused(tmp_path: Path) -> None:
    """What one source saw and what another saw would be two different things."""
    with caller(tmp_path) as one, cgroup("2:/system.slice/a.service") as place:

        class Slow:
            name = "unix"

            async def selectors(self, subject: Subject) -> frozenset[Selector]:
                move(one.pid, place)
                return frozenset()

        peer = peer_of(one.connection)
        with pytest.raises(CallerGone, match="moved to another cgroup"):
            await Attestor([Slow()]).attest(peer)
        peer.close()


async def test_a_better_boundary_than_the_user_is_said(tmp_path: Path, source: UnixSource) -> None:
    """But not of a peer that may be somebody else."""

    class Wall:
        name = "k8s"

        async def selectors(self, subject: Subject) -> frozenset[Selector]:
            return frozenset()

        def strength(self, found: frozenset[Selector]) -> Strength | None:
            return Strength.POD

    with caller(tmp_path) as one:
        for option, strength in ((SO_PEERPIDFD, Strength.POD), (9999, Strength.WEAK_PEER)):
            peer = peer_of(one.connection, option=option)
            assert (await Attestor([source, Wall()]).attest(peer)).strength is strength
            peer.close()
