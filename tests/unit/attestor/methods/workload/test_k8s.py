"""From a process in a real cgroup to the selectors of its pod, by a kubelet over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.instance import Strength
from attestor.methods.workload.k8s import STALE, KubernetesSource
from attestor.methods.workload.kubelet import MOST_OFTEN, Kubelet, fetcher
from attestor.methods.workload.proc import CallerGone
from attestor.node_agent.attest import Attestor
from attestor.node_agent.peer import Findings, peer_of
from attestor.selector import texts
from ca.errors import Unavailable
from fakes.caller import Caller, caller
from fakes.cgroups import cgroup
from fakes.clock import ManualClock
from fakes.kubelet import FakeKubelet, kubelet

UID = "2c48913c-b29f-11e7-9350-020968147796"
CONTAINER = "a" * 64
PLACE = f"2:/kubepods/burstable/pod{UID}/{CONTAINER}"


@dataclass
class World:
    """A node agent's look at pods."""

    fake: FakeKubelet
    clock: ManualClock
    attestor: Attestor

    async def attest(self, one: Caller) -> Findings:
        """What is found out about `one`."""
        peer = peer_of(one.connection)
        try:
            return await self.attestor.attest(peer)
        finally:
            peer.close()


@asynccontextmanager
async def looking(folder: Path) -> AsyncIterator[World]:
    """It may ask."""
    clock = ManualClock()
    async with kubelet(folder) as fake, fetcher(fake.settings()) as entered:
        source = KubernetesSource(Kubelet(fake.settings(), entered, clock), clock, patience=timedelta(seconds=20))
        yield World(fake, clock, Attestor([source]))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One that runs nothing yet."""
    async with looking(tmp_path) as one:
        yield one


async def test_a_process_in_a_pod_has_its_selectors_and_its_strength(world: World, tmp_path: Path) -> None:
    """Those of the pod, and of the container it is in."""
    world.fake.add_pod(
        "shop", "cart", {"main": CONTAINER, "side": "b" * 64}, uid=UID, labels={"app": "cart", "a/b": "c:d"}
    )
    with caller(tmp_path) as one, cgroup(PLACE, one):
        found = await world.attest(one)
    said = texts(found.selectors)
    digest = "d" * 64
    assert [one for one in said if not one.startswith("k8s:pod-image")] == [
        "k8s:container-image:registry.example/main:1",
        f"k8s:container-image:registry.example/main@sha256:{digest}",
        "k8s:container-name:main",
        "k8s:node-name:node-1",
        "k8s:ns:shop",
        "k8s:pod-label:a/b:c:d",
        "k8s:pod-label:app:cart",
        "k8s:pod-name:cart",
        f"k8s:pod-uid:{UID}",
        "k8s:sa:cart",
    ]
    assert f"k8s:pod-image:registry.example/side@sha256:{digest}" in said
    assert found.strength is Strength.POD


@pytest.mark.parametrize("kind", ["initContainerStatuses", "ephemeralContainerStatuses"])
async def test_init_and_ephemeral_containers_are_containers(world: World, tmp_path: Path, kind: str) -> None:
    """SPIRE's users miss the second."""
    world.fake.add_pod("shop", "cart", {"early": CONTAINER}, uid=UID, kind=kind)
    with caller(tmp_path) as one, cgroup(PLACE, one):
        assert "k8s:container-name:early" in texts((await world.attest(one)).selectors)


async def test_a_process_in_no_pod_has_none_and_nobody_is_asked(world: World, tmp_path: Path) -> None:
    """Which is no error."""
    with caller(tmp_path) as one, cgroup("2:/system.slice/sshd.service", one):
        found = await world.attest(one)
    assert (found.selectors, found.unsaid, world.fake.asked) == (frozenset(), (), 0)
    assert found.strength is Strength.SHARED_UID


@pytest.mark.parametrize(
    "spec",
    [
        {"hostPID": True},
        {"containers": [{"name": "main", "securityContext": {"privileged": True}}]},
        {"initContainers": [{"name": "main", "securityContext": {"privileged": True}}]},
    ],
)
async def test_a_pod_open_to_its_host_is_no_boundary(world: World, tmp_path: Path, spec: dict[str, object]) -> None:
    """Its processes see those of others: they are worth what their user is."""
    world.fake.add_pod("shop", "cart", {"main": CONTAINER}, uid=UID, spec=spec)
    with caller(tmp_path) as one, cgroup(PLACE, one):
        found = await world.attest(one)
    assert "k8s:pod-open-to-host:true" in texts(found.selectors)
    assert found.strength is Strength.SHARED_UID


async def test_a_container_the_kubelet_does_not_know_yet_is_waited_for(world: World, tmp_path: Path) -> None:
    """It is started before the kubelet says so."""
    with caller(tmp_path) as one, cgroup(PLACE, one):
        async with asyncio.TaskGroup() as group:
            attesting = group.create_task(world.attest(one))
            await world.clock.until(lambda: world.fake.asked == 2, step=MOST_OFTEN)
            world.fake.add_pod("shop", "cart", {"main": CONTAINER}, uid=UID)
            await world.clock.until(attesting.done, step=MOST_OFTEN)
    assert "k8s:ns:shop" in texts(attesting.result().selectors)


async def test_a_container_it_never_knows_is_refused_in_the_end(world: World, tmp_path: Path) -> None:
    """Not given what is left of its selectors."""
    with caller(tmp_path) as one, cgroup(PLACE, one):
        assert await outcome(world, one) == "the kubelet knows no pod with the container this process is in"
    assert 40 <= world.fake.asked <= 42


async def outcome(world: World, one: Caller) -> str:
    """Why it is refused."""
    async with asyncio.TaskGroup() as group:
        refused = group.create_task(refusal(world, one))
        await world.clock.until(refused.done, step=MOST_OFTEN)
    return refused.result()


async def refusal(world: World, one: Caller) -> str:
    """As long as it takes."""
    with pytest.raises(Unavailable) as problem:
        await world.attest(one)
    return str(problem.value)


async def test_nobody_waits_for_a_dead_process(world: World, tmp_path: Path) -> None:
    """A crowd that connects and dies keeps nothing busy."""
    with caller(tmp_path) as one, cgroup(PLACE, one):

        async def attest() -> None:
            with pytest.raises(CallerGone):
                await world.attest(one)

        async with asyncio.TaskGroup() as group:
            attesting = group.create_task(attest())
            await world.clock.until(lambda: world.fake.asked == 2, step=MOST_OFTEN)
            one.kill()
            await world.clock.until(attesting.done, step=MOST_OFTEN)


async def test_what_is_known_counts_while_the_kubelet_is_away(world: World, tmp_path: Path) -> None:
    """For a while: a container never changes its pod. A new container is nobody's."""
    world.fake.add_pod("shop", "cart", {"main": CONTAINER}, uid=UID)
    with (
        caller(tmp_path) as one,
        cgroup(PLACE, one),
        caller(tmp_path) as new,
        cgroup(PLACE.replace("a" * 64, "b" * 64)),
    ):
        before = await world.attest(one)
        world.fake.status = 503
        await world.clock.advance(STALE / 2)
        assert (await world.attest(one)).selectors == before.selectors
        with cgroup(PLACE.replace("a" * 64, "c" * 64), new):
            assert "503" in await outcome(world, new)
        await world.clock.advance(STALE / 2)
        assert "503" in await outcome(world, one)


async def test_a_static_pod_is_said_to_be_one(world: World, tmp_path: Path) -> None:
    """The API knows it by another uid, so the server could not find it."""
    with caller(tmp_path) as one, cgroup(PLACE.replace(UID, "0" * 32), one):
        found = await world.attest(one)
    assert found.selectors == frozenset()
    assert "static pod" in found.unsaid[0][1]


async def test_too_many_labels_are_none(world: World, tmp_path: Path) -> None:
    """Else whoever writes a pod could make the server refuse a whole batch of questions."""
    world.fake.add_pod("shop", "cart", {"main": CONTAINER}, uid=UID, labels={f"l{n}": "x" for n in range(200)})
    with caller(tmp_path) as one, cgroup(PLACE, one):
        found = await world.attest(one)
    assert found.selectors == frozenset()
    assert "so many labels" in found.unsaid[0][1]
    assert found.strength is Strength.SHARED_UID
