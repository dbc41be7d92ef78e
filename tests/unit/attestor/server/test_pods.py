"""The view of pods: watched, or read one by one."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from attestor.instance import Strength
from attestor.selector import parse_all, texts
from attestor.server.pods import Believed, PodView
from attestor.server.store.nodes import Node, NodeState
from ca.runtime.process import background
from fakes.attestor_parts import attestation
from fakes.clock import ManualClock
from fakes.clusters import known
from fakes.kubernetes import FakeCluster

READS = ("GET", "/api/v1/namespaces/shop/pods/cart-0")


def node(method: str = "k8s_psat", *facts: str) -> Node:
    """A node as admitted."""
    now = ManualClock().now()
    return Node(
        id="n",
        state=NodeState.ADMITTED,
        admission="0" * 32,
        method=method,
        selectors=parse_all(facts or ("k8s_psat:cluster:prod", "k8s_psat:agent_node_name:worker-1")),
        admitted_at=now,
        seen_at=now,
        live_counter=0,
    )


def said(uid: str) -> list[str]:
    """What a node agent says of the pod `cart-0`."""
    return ["k8s:ns:shop", "k8s:pod-name:cart-0", f"k8s:pod-uid:{uid}", "k8s:container-name:main"]


def cart(api: FakeCluster) -> str:
    """A pod with everything; its uid."""
    pod = api.add_pod(
        "shop",
        "cart-0",
        node="worker-1",
        account="cart",
        labels={"app": "cart"},
        containers=("main", "side"),
        owner=("StatefulSet", "cart"),
    )
    return str(pod["metadata"]["uid"])


async def believed(view: PodView, uid: str, of: Node | None = None) -> list[str]:
    """What is left of it, in words."""
    (one,) = await view.believe(of or node(), [attestation(*said(uid))])
    assert isinstance(one, Believed)
    return texts(one.attestation.selectors)


async def test_everything_comes_from_the_api(tmp_path: Path) -> None:
    """And is read once while it is fresh."""
    async with known(tmp_path) as (api, cluster):
        uid, view = cart(api), PodView({"prod": cluster}, ManualClock())
        status = {one["name"]: one["imageID"] for one in api.pods["shop", "cart-0"]["status"]["containerStatuses"]}
        assert await believed(view, uid) == sorted(
            [
                f"k8s:container-image:{status['main']}",
                "k8s:container-image:registry.example/main:1",
                "k8s:container-name:main",
                "k8s:node-name:worker-1",
                "k8s:ns:shop",
                f"k8s:pod-image:{status['main']}",
                f"k8s:pod-image:{status['side']}",
                "k8s:pod-image:registry.example/main:1",
                "k8s:pod-image:registry.example/side:1",
                "k8s:pod-label:app:cart",
                "k8s:pod-name:cart-0",
                "k8s:pod-owner-uid:StatefulSet:o",
                "k8s:pod-owner:StatefulSet:cart",
                f"k8s:pod-uid:{uid}",
                "k8s:sa:cart",
            ]
        )
        await believed(view, uid)
        assert api.requests.count(READS) == 1


async def test_a_watched_pod_is_not_read(tmp_path: Path) -> None:
    """A change is there as soon as the API told it; when the watch breaks, pods are read again."""
    async with asyncio.timeout(60), known(tmp_path) as (api, cluster):
        uid, clock = cart(api), ManualClock()
        view = PodView({"prod": cluster}, clock)
        async with background("pods", partial(view.follow, cluster), every=5, clock=clock):
            await clock.until(lambda: view.watches("prod"))
            assert "k8s:sa:cart" in await believed(view, uid)
            other = cart(api)
            await api.stir()
            api.remove(api.pods["shop", "cart-0"])
            await api.stir()
            api.requests.clear()
            while "k8s:sa:cart" in await believed(view, other):
                await clock.until(lambda: True)
            assert "k8s:sa:cart" in await believed(view, uid), "its own end was never told"
            api.status = 403
            await api.cut_watches()
            await clock.until(lambda: not view.watches("prod"), step=1)
            api.status = None
            await clock.until(lambda: view.watches("prod"), step=1)
            assert await believed(view, uid) == []


async def test_a_trusting_server_believes_nodes_without_a_cluster(tmp_path: Path) -> None:
    """Not one that proved a machine of a cluster: it is still compared."""
    async with known(tmp_path) as (api, cluster):
        uid, view = cart(api), PodView({"prod": cluster}, ManualClock(), trust_node_agents=True)
        assert await believed(view, uid, node("join_token", "node:name:x")) == sorted(said(uid))
        elsewhere = node("k8s_psat", "k8s_psat:cluster:prod", "k8s_psat:agent_node_name:worker-9")
        assert await believed(view, uid, elsewhere) == []
        assert await believed(view, uid, node("k8s_psat", "k8s_psat:cluster:old")) == []


@pytest.mark.parametrize(
    ("claimed", "left"),
    [
        (Strength.POD, Strength.SHARED_UID),
        (Strength.CONTAINER, Strength.SHARED_UID),
        (Strength.OWN_UID, Strength.OWN_UID),
        (Strength.WEAK_PEER, Strength.WEAK_PEER),
    ],
)
async def test_without_its_pod_an_attestation_is_not_worth_one(claimed: Strength, left: Strength) -> None:
    """A rule that asks for the strength `pod` and names a user only must not be met by a node agent's word."""
    view = PodView({}, ManualClock())
    (one,) = await view.believe(node(), [attestation("unix:uid:1", *said("u"), strength=claimed)])
    assert isinstance(one, Believed)
    assert texts(one.attestation.selectors) == ["unix:uid:1"]
    assert one.attestation.strength is left


async def test_only_pods_are_asked_about(tmp_path: Path) -> None:
    """Nothing else costs the API anything."""
    async with known(tmp_path) as (api, cluster):
        (one,) = await PodView({"prod": cluster}, ManualClock()).believe(node(), [attestation("unix:uid:1")])
        assert isinstance(one, Believed)
        assert (texts(one.attestation.selectors), one.doubt) == (["unix:uid:1"], "")
        assert api.requests == []


async def test_a_strength_without_a_pod_is_a_claim_too(tmp_path: Path) -> None:
    """Only what a server was told to trust is taken at its word, and never a node whose cluster could be asked."""
    async with known(tmp_path) as (api, cluster):
        plain, other = PodView({"prod": cluster}, ManualClock()), node("join_token", "node:name:x")
        trusting = PodView({"prod": cluster}, ManualClock(), trust_node_agents=True)
        for view, of, left in (
            (plain, node(), Strength.SHARED_UID),
            (plain, other, Strength.SHARED_UID),
            (trusting, node(), Strength.SHARED_UID),
            (trusting, other, Strength.POD),
        ):
            (one,) = await view.believe(of, [attestation("unix:uid:1", strength=Strength.POD)])
            assert isinstance(one, Believed)
            assert one.attestation.strength is left
            assert bool(one.doubt) is (left is not Strength.POD)
        uid = cart(api)
        (one,) = await plain.believe(node(), [attestation(*said(uid), strength=Strength.TPM)])
        assert isinstance(one, Believed)
        assert one.attestation.strength is Strength.POD
