"""A container, pod or unit as one instance: real processes in real cgroups of both versions."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from attestor.errors import NotEntitled
from attestor.instance import Binding
from attestor.methods.workload.cgroup import SYSTEMD, Cgroup
from attestor.methods.workload.proc import CallerGone
from attestor.node_agent.cgroups import CgroupName, open_cgroup, reopen_cgroup, watch
from attestor.node_agent.held import Held
from attestor.node_agent.peer import boot_id, peer_of
from ca.errors import Exhausted, Unavailable
from fakes.caller import WAIT, Caller, caller
from fakes.cgroups import cgroup, move, place_of
from fakes.issuer import identity
from fakes.workload import Agent, workload_api

UNIT = "/system.slice/agent.service"
POD = "/kubepods/burstable/pod2c48913c-b29f-11e7-9350-020968147796"
LEAVE_A_CHILD = "os.read(0, 1)\nif os.fork() == 0:\n    os.setsid()\n    os.write(1, b'f')\n    os.read(0, 1)"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent whose rules bind to the unit."""
    async with workload_api(tmp_path) as one:
        bound(one, Binding.UNIT)
        yield one


def bound(agent: Agent, *binds: Binding) -> None:
    """Every process gets an identity for each of these."""
    authority = agent.issuer.authority
    agent.issuer.given = lambda _: tuple(
        replace(identity(authority.id(f"/{bind}")), bind=bind, hint=str(bind)) for bind in binds
    )


async def held_by(agent: Agent, one: Caller) -> Held:
    """What a process holds after it called."""
    async with agent.renewal.admitted(peer_of(one.connection)) as held:
        return held


def live(agent: Agent) -> set[str]:
    """What is reported."""
    return set(agent.holdings.live().instances)


async def test_all_processes_of_a_unit_are_one_instance(agent: Agent, tmp_path: Path) -> None:
    """Each with a leaf and a key of its own."""
    with caller(tmp_path) as one, caller(tmp_path) as other, cgroup(f"2:{UNIT}", one, other):
        first, second = await held_by(agent, one), await held_by(agent, other)
        assert first is not second
        assert first.instance == second.instance
        assert live(agent) == {first.instance}
        (leaf,), (another,) = first.leaves.values(), second.leaves.values()
        assert leaf.key != another.key
        assert agent.issuer.signed[0].attestation.counter == agent.holdings.live().counter


@pytest.mark.parametrize("version", ["1", "2"])
async def test_it_ends_with_its_last_process(agent: Agent, tmp_path: Path, version: str) -> None:
    """Version 2 tells at once, version 1 at the next look; the end of a single process is none."""
    with caller(tmp_path) as one, caller(tmp_path) as other, cgroup(f"{version}:{UNIT}", one, other):
        held = await held_by(agent, one)
        await held_by(agent, other)
        one.kill()
        await agent.clock.until(lambda: len(agent.holdings) == 1)
        await agent.tick()
        assert live(agent) == {held.instance}
        other.kill()
        await agent.clock.until(lambda: len(agent.holdings) == 0)
        if version == "1":
            await agent.tick()
        await agent.clock.until(lambda: live(agent) == set())


async def test_a_daemon_s_double_fork_does_not_end_it(agent: Agent, tmp_path: Path) -> None:
    """Who connected is gone, its grandchild goes on."""
    with caller(tmp_path, then=LEAVE_A_CHILD) as one, cgroup(f"2:{UNIT}", one):
        held = await held_by(agent, one)
        one.tell()
        one.hear()
        await agent.clock.until(lambda: len(agent.holdings) == 0)
        await agent.tick()
        assert live(agent) == {held.instance}
        assert held.enclosure is not None
        assert held.enclosure.is_alive()


async def test_a_container_and_its_pod_are_two_instances(agent: Agent, tmp_path: Path) -> None:
    """Two containers of a pod share the pod's."""
    with ExitStack() as stack:
        one, other = stack.enter_context(caller(tmp_path)), stack.enter_context(caller(tmp_path))
        stack.enter_context(cgroup(f"2:{POD}/{'a' * 64}", one))
        stack.enter_context(cgroup(f"2:{POD}/{'b' * 64}", other))
        bound(agent, Binding.CONTAINER)
        containers = {(await held_by(agent, each)).instance for each in (one, other)}
        assert len(containers) == 2
        agent.issuer.rules_version = "2"
        bound(agent, Binding.POD)
        pods = {(await held_by(agent, each)).instance for each in (one, other)}
        assert len(pods) == 1
        assert live(agent) == containers | pods  # leaves of the former are still out


async def test_who_leaves_the_cgroup_leaves_the_instance(agent: Agent, tmp_path: Path) -> None:
    """What it was given is taken away at its next message; elsewhere it is another."""
    with caller(tmp_path) as one, caller(tmp_path) as stays, cgroup(f"2:{UNIT}", one, stays):
        async with agent.renewal.admitted(peer_of(one.connection)) as held:
            instance = held.instance
            with cgroup("2:/system.slice/other.service") as elsewhere:
                move(one.pid, elsewhere)
                with pytest.raises(CallerGone):
                    agent.renewal.look_again(held)
                assert not held.leaves
                assert (await held_by(agent, one)).instance != instance
                assert instance in live(agent)


async def test_with_the_end_of_the_cgroup_who_left_it_before_holds_nothing(agent: Agent, tmp_path: Path) -> None:
    """Even if it is not looked at: the leaf was the unit's."""
    with caller(tmp_path) as one, cgroup(f"2:{UNIT}", one):
        held = await held_by(agent, one)
        move(one.pid, place_of("2:/"))
        await agent.clock.until(lambda: live(agent) == set())
        assert (held.leaves, held.identities, held.findings) == ({}, (), None)


async def test_a_cgroup_made_anew_under_the_same_path_is_another(agent: Agent, tmp_path: Path) -> None:
    """Its inode is another one."""
    seen = set()
    for _ in range(2):
        with caller(tmp_path) as one, cgroup(f"2:{UNIT}", one):
            seen.add((await held_by(agent, one)).instance)
            one.kill()
            await agent.clock.until(lambda: live(agent) == set())
    assert len(seen) == 2


@pytest.mark.parametrize("version", ["1", "2"])
async def test_after_a_restart_it_is_the_same_or_gone(tmp_path: Path, version: str) -> None:
    """By what the journal says of it: path, inode and boot."""
    with caller(tmp_path) as one, cgroup(f"{version}:{UNIT}", one):
        async with workload_api(tmp_path) as agent:
            bound(agent, Binding.UNIT)
            instance = (await held_by(agent, one)).instance
        async with workload_api(tmp_path) as agent:
            bound(agent, Binding.UNIT)
            assert live(agent) == {instance}
            assert (await held_by(agent, one)).instance == instance
        one.kill()
        async with workload_api(tmp_path) as agent:
            assert live(agent) == set()


async def test_one_that_was_made_anew_while_we_were_away_is_gone(tmp_path: Path) -> None:
    """Somebody is in it, under the same path: it is another."""
    with caller(tmp_path) as one, cgroup(f"2:{UNIT}", one):
        async with workload_api(tmp_path) as agent:
            bound(agent, Binding.UNIT)
            instance = (await held_by(agent, one)).instance
    with caller(tmp_path) as other, cgroup(f"2:{UNIT}", other):
        async with workload_api(tmp_path) as agent:
            assert live(agent) == set()
            bound(agent, Binding.UNIT)
            assert (await held_by(agent, other)).instance != instance


async def test_the_narrowest_binding_counts(agent: Agent, tmp_path: Path) -> None:
    """No identity outlives what it is bound to."""
    bound(agent, Binding.NONE, Binding.UNIT, Binding.PROCESS)
    with caller(tmp_path) as one, caller(tmp_path) as other, cgroup(f"2:{UNIT}", one, other):
        assert (await held_by(agent, one)).enclosure is None
        assert (await held_by(agent, one)).instance != (await held_by(agent, other)).instance


async def test_in_no_unit_the_process_is_the_instance(agent: Agent, tmp_path: Path) -> None:
    """It ends no later than what it was to be bound to."""
    with caller(tmp_path) as one:
        held = await held_by(agent, one)
        assert held.enclosure is None
        one.kill()
        await agent.clock.until(lambda: live(agent) == set())


async def test_what_the_server_ended_is_ended_for_who_joins_it(agent: Agent, tmp_path: Path) -> None:
    """A new process of a unit whose instance was ended gets nothing."""
    with caller(tmp_path) as one, caller(tmp_path) as other, cgroup(f"2:{UNIT}", one, other):
        held = await held_by(agent, one)
        agent.holdings.bar(frozenset({held.instance}))
        assert not held.leaves
        for each in (one, other):
            with pytest.raises(NotEntitled):
                await held_by(agent, each)


async def test_a_child_in_the_same_unit_descends_from_nobody(agent: Agent, tmp_path: Path) -> None:
    """It is the same instance; `children:` is about others."""
    connect = f"""
import subprocess, sys, time
code = "import os, socket; c = socket.socket(socket.AF_UNIX); c.connect(%r); os.write(1, b'c'); os.read(0, 1)" % PATH
os.read(0, 1)
child = subprocess.Popen([sys.executable, "-c", code])
{WAIT}
"""
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        path = str(tmp_path / "child.sock")
        listener.bind(path)
        listener.listen()
        with caller(tmp_path, then=connect.replace("PATH", repr(path))) as one, cgroup(f"2:{UNIT}", one):
            parent = await held_by(agent, one)
            one.tell()
            listener.settimeout(60)
            connection, _ = listener.accept()
            with connection:
                async with agent.renewal.admitted(peer_of(connection)) as held:
                    assert held.findings is not None
                    assert parent.name.pid in [pid for pid, _ in held.findings.lineage]
                    assert (held.ancestors, held.instance) == ((), parent.instance)


async def test_nothing_is_given_that_is_not_journalled(agent: Agent, tmp_path: Path) -> None:
    """The order is the same as for a process."""
    seen: list[bool] = []
    agent.issuer.before_signing = lambda: seen.append(
        all(one in (tmp_path / "journal").read_text() for one in live(agent)) and bool(live(agent))
    )
    with caller(tmp_path) as one, cgroup(f"2:{UNIT}", one):
        await held_by(agent, one)
    assert seen == [True]


async def test_a_rule_that_binds_anew_reaches_an_open_stream(agent: Agent, tmp_path: Path) -> None:
    """From the process to its unit, with other leaves."""
    bound(agent, Binding.PROCESS)
    with caller(tmp_path) as one, cgroup(f"2:{UNIT}", one):
        async with agent.renewal.admitted(peer_of(one.connection)) as held:
            before = held.instance
            bound(agent, Binding.UNIT)
            agent.issuer.rules_version = "2"
            await agent.tick()
            assert held.enclosure is not None
            assert agent.issuer.signed[-1].attestation.instance == held.instance != before
            assert live(agent) == {before, held.instance}
            agent.issuer.down = True
            agent.issuer.rules_version = "3"
            with pytest.raises(Unavailable):
                await agent.tick()
            assert held.leaves


def test_a_cgroup_is_known_by_more_than_its_path(tmp_path: Path) -> None:
    """Another boot, another inode or a place we don't see is another, or none."""
    with caller(tmp_path) as one, cgroup(f"2:{UNIT}", one):
        opened = open_cgroup(Cgroup((), UNIT))
        assert opened is not None
        name, folder = opened
        os.close(folder)
        assert name.boot_id == boot_id()
        for wrong in (replace(name, inode=1), replace(name, boot_id="x"), replace(name, path=f"{UNIT}/no")):
            assert reopen_cgroup(wrong) is None
    for cannot in (Cgroup((), "/"), Cgroup((), "/../x"), Cgroup(("no",), UNIT), Cgroup((), UNIT)):
        assert open_cgroup(cannot) is None
    assert isinstance(name, CgroupName)


@pytest.mark.parametrize(("version", "controllers"), [("1", (SYSTEMD,)), ("2", ())])
def test_whoever_is_below_is_in_it(tmp_path: Path, version: str, controllers: tuple[str, ...]) -> None:
    """In either version; a removed one has nobody."""
    with caller(tmp_path) as one:
        with cgroup(f"{version}:{UNIT}") as place:
            opened = open_cgroup(Cgroup(controllers, UNIT))
            assert opened is not None
            watched = watch(opened[1])
            assert (watched.tells, watched.is_populated()) == (version == "2", False)
            (place / "below").mkdir()
            move(one.pid, place / "below")
            assert watched.is_populated()
        assert not watched.is_populated()
        watched.close()


async def test_processes_and_cgroups_share_the_room(tmp_path: Path) -> None:
    """Each costs a descriptor; without room for the cgroup the process is the instance."""
    with ExitStack() as stack:
        one, other = stack.enter_context(caller(tmp_path)), stack.enter_context(caller(tmp_path))
        stack.enter_context(cgroup(f"2:{UNIT}", one, other))
        async with workload_api(tmp_path, most=2) as agent:
            bound(agent, Binding.UNIT)
            await held_by(agent, one)
            with pytest.raises(Exhausted):
                await held_by(agent, other)
        (tmp_path / "journal").unlink()
        async with workload_api(tmp_path, most=1) as agent:
            bound(agent, Binding.UNIT)
            assert (await held_by(agent, one)).enclosure is None


async def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    """Neither of a cgroup that ended nor of one that was watched until we stopped."""
    before = descriptors()
    for version in ("1", "2"):
        with caller(tmp_path) as stays, cgroup(f"{version}:/system.slice/stays.service", stays):
            async with workload_api(tmp_path) as agent:
                bound(agent, Binding.UNIT)
                await held_by(agent, stays)
                with caller(tmp_path) as one, cgroup(f"{version}:{UNIT}", one):
                    await held_by(agent, one)
                    one.kill()
                    await agent.clock.until(lambda: len(agent.holdings) == 1)
                    await agent.tick()
                    await agent.clock.until(lambda: len(live(agent)) == 1)
    assert descriptors() == before


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
