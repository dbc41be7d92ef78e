"""The kubelet is asked once for all who wait, and believed in nothing that can't be read."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from attestor.methods.workload.cgroup import Cgroup
from attestor.methods.workload.container import Located
from attestor.methods.workload.kubelet import MOST_OFTEN, Kubelet, KubeletSettings, fetcher
from attestor.methods.workload.protocol import CantSay
from ca.errors import Malformed, Unavailable
from fakes.clock import ManualClock
from fakes.kubelet import FakeKubelet, kubelet

CONTAINER, OTHER = "a" * 64, "b" * 64


@asynccontextmanager
async def asking(fake: FakeKubelet, clock: ManualClock | None = None, **changes: Any) -> AsyncIterator[Kubelet]:
    """Somebody who may ask."""
    settings = fake.settings(**changes)
    async with fetcher(settings) as entered:
        yield Kubelet(settings, entered, clock or ManualClock())


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeKubelet]:
    """One that runs a pod."""
    async with kubelet(tmp_path) as one:
        one.add_pod("shop", "cart", {"main": CONTAINER})
        yield one


def located(container: str, pod: str | None) -> Located:
    """What a cgroup says."""
    return Located(container=container, pod=pod, container_cgroup=Cgroup((), "/x"), pod_cgroup=None)


async def test_all_who_wait_share_one_question(fake: FakeKubelet) -> None:
    """And an answer of the last half second is as good as a new one."""
    clock = ManualClock()
    async with asking(fake, clock) as one:
        fake.answering.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(one.recent()) for _ in range(20)]
            await clock.until(lambda: fake.asked == 1)
            fake.answering.set()
        assert {task.result().version for task in waiting} == {1}
        assert (fake.asked, fake.most_at_once) == (1, 1)
        assert (await one.recent()).version == 1
        await clock.advance(MOST_OFTEN)
        assert (await one.recent()).version == 2


async def test_a_newer_answer_is_asked_for_no_sooner_than_half_a_second_later(fake: FakeKubelet) -> None:
    """However many want one."""
    clock = ManualClock()
    async with asking(fake, clock) as one:
        first = await one.recent()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(one.newer(first.version)) for _ in range(5)]
            await clock.advance(MOST_OFTEN * 0.9)
            assert fake.asked == 1
            await clock.until(lambda: all(task.done() for task in waiting), step=MOST_OFTEN)
        assert fake.asked == 2


async def test_who_waited_while_it_failed_is_told_so(fake: FakeKubelet) -> None:
    """Twenty waiters of a dead kubelet are one question, not twenty one after the other."""
    clock = ManualClock()
    fake.status = 500
    async with asking(fake, clock) as one:
        fake.answering.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(refused(one)) for _ in range(20)]
            await clock.until(lambda: fake.asked == 1)
            fake.answering.set()
        assert {task.result() for task in waiting} == {"the kubelet answers with the status 500"}
        assert fake.asked == 1


async def refused(one: Kubelet) -> str:
    """Why it does not answer."""
    with pytest.raises(Unavailable) as problem:
        await one.recent()
    return str(problem.value)


async def test_the_token_is_read_for_each_question_and_never_told(fake: FakeKubelet) -> None:
    """It is replaced while we run; what stands in the file is in no error."""
    clock = ManualClock()
    async with asking(fake, clock) as one:
        await one.recent()
        fake.accepted = "another"
        await clock.advance(MOST_OFTEN)
        assert await refused(one) == "the kubelet does not let the node agent list its pods"
        fake.token_file.write_text("another")
        await clock.advance(MOST_OFTEN)
        await one.recent()
        for bad in (b"", b"two words", b"\xff\xfe", b"a\nb"):
            fake.token_file.write_bytes(bad)
            await clock.advance(MOST_OFTEN)
            assert "two" not in await refused(one)


async def test_it_must_be_known_by_its_ca_and_by_the_name_asked_for(tmp_path: Path, fake: FakeKubelet) -> None:
    """On loopback no name is asked for unless one is given; elsewhere the token is shown to nobody else."""
    async with asking(fake, server_name="node-1") as one:
        await one.recent()
    async with asking(fake, server_name="node-2") as one:
        assert "not trusted" in await refused(one)
    (tmp_path / "other").mkdir()
    async with kubelet(tmp_path / "other") as impostor, asking(fake, port=impostor.port) as one:
        assert "not trusted" in await refused(one)
        assert impostor.asked == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"pods",
        b"[]",
        b"{}",
        b'{"kind": "PodList", "items": {}}',
        b'{"kind": "PodList", "items": "none"}',
        b'{"kind": "Status", "items": []}',
        b'{"kind": "PodList", "kind": "PodList", "items": []}',
        b"[" * 200_000,
        json.dumps({"kind": "PodList", "items": [None] * 5001}).encode(),
        b"\xff" * 100,
    ],
    ids=range(11),
)
async def test_garbage_is_no_answer(fake: FakeKubelet, body: bytes) -> None:
    """Neither are no pods, nor are the old ones."""
    fake.body = body
    async with asking(fake) as one:
        with pytest.raises(Unavailable):
            await one.recent()
        assert one.known.version == 0


async def test_a_pod_that_can_not_be_read_is_none_and_the_others_stand(fake: FakeKubelet) -> None:
    """Wrong types everywhere."""
    for change in (
        {"metadata": None},
        {"metadata": {"namespace": 1, "name": [], "uid": {}}},
        {"spec": "none"},
        {"status": {"containerStatuses": [1]}},
        {"status": {"containerStatuses": [{"name": "x", "containerID": 7}]}},
    ):
        fake.pods.append(fake.pods[0] | {"metadata": fake.pods[0]["metadata"] | {"uid": OTHER[:8]}} | change)
    fake.pods.extend([None, 7, []])  # type: ignore[list-item]
    async with asking(fake) as one:
        snapshot = await one.recent()
    assert list(snapshot.by_uid) == [fake.pods[0]["metadata"]["uid"]]


async def test_what_hangs_is_given_up(fake: FakeKubelet) -> None:
    """And is asked again."""
    fake.answering.clear()
    async with asking(fake, deadline=timedelta(milliseconds=50)) as one:
        assert "did not answer" in await refused(one)


async def test_two_pods_that_claim_the_same_are_nobody(fake: FakeKubelet) -> None:
    """The same container, or the same uid."""
    uid = fake.pods[0]["metadata"]["uid"]
    fake.add_pod("evil", "cart", {"main": CONTAINER})
    fake.add_pod("evil", "twin", {"main": OTHER}, uid="00000000-0000-0000-0000-000000000001")
    fake.add_pod("evil", "other", {"main": "c" * 64}, uid="00000000-0000-0000-0000-000000000001")
    async with asking(fake) as one:
        snapshot = await one.recent()
    with pytest.raises(CantSay, match="two pods have this container"):
        snapshot.find(located(CONTAINER, uid))
    with pytest.raises(CantSay, match="two pods of the same uid"):
        snapshot.find(located(OTHER, "00000000-0000-0000-0000-000000000001"))


async def test_a_container_of_another_pod_than_the_cgroup_s_is_nobody_s(fake: FakeKubelet) -> None:
    """The two must agree; where the cgroup leaves the pod open the container decides."""
    async with asking(fake) as one:
        snapshot = await one.recent()
    with pytest.raises(CantSay, match="another pod"):
        snapshot.find(located(CONTAINER, "00000000-0000-0000-0000-000000000001"))
    found = snapshot.find(located(CONTAINER, None))
    assert found is not None
    assert (found[0].pod.name, found[1].name) == ("cart", "main")
    assert snapshot.find(located(OTHER, None)) is None


def test_where_it_is_may_stand_in_the_environment() -> None:
    """As a pod is told on which machine it runs; what is not set is said, and nothing is guessed."""
    found = KubeletSettings(host="env:PATH", server_name="env:PATH").resolved()
    assert found.host == found.server_name == os.environ["PATH"]
    assert KubeletSettings().resolved() == KubeletSettings()
    with pytest.raises(Malformed, match="the environment has no `NOT_SET_ANYWHERE`"):
        KubeletSettings(host="env:NOT_SET_ANYWHERE").resolved()
