"""Traps 2: a rooted machine speaks for its own pods, and for no other machine's.

The node agent here is hostile: it holds a real admission by its cluster, and says whatever it likes of its processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attestor.instance import Strength
from attestor.server.store.nodes import Node
from attestor.wire.attestation import Attestation
from attestor.wire.node import JwtItem, Refusal, Signed
from ca.errors import Unavailable
from fakes.attestor_parts import DOMAIN, Parts, attestation, wants
from fakes.clusters import NODE_AUDIENCE, node_agent, prove, with_nodes
from fakes.kubernetes import FakeCluster

RULES = """
rules:
  - {name: cart, nodes: ["k8s_psat:cluster:prod"], when: ["k8s:ns:shop", "k8s:sa:cart"],
     spiffe_id: "/{k8s.ns}/{k8s.sa}"}
  - {name: image, nodes: ["k8s_psat:cluster:prod"], when: ["k8s:container-name:main", "k8s:pod-label:app:cart"],
     spiffe_id: /main}
  - {name: digest, nodes: ["k8s_psat:cluster:prod"], when: ["k8s:container-image:registry.example/safe:1"],
     spiffe_id: /safe}
  - {name: other, nodes: ["node:*"], when: ["k8s:ns:shop"], spiffe_id: /shop}
  - {name: plain, nodes: ["node:*"], when: ["unix:uid:7"], spiffe_id: /plain}
  - {name: job, nodes: ["node:*"], when: ["oidc:repository:us/app"], spiffe_id: /job}
  - {name: strong, nodes: ["node:*"], when: ["unix:uid:9"], strength: container, spiffe_id: /strong}
  - {name: psat, nodes: ["node:*"], when: ["k8s_psat:agent_ns:sojourn"], spiffe_id: /psat}
"""


async def admitted(api: FakeCluster, server: Parts, name: str = "worker-1") -> Node:
    """A node of the cluster."""
    return await server.node((await prove(server, api.token(node_agent(api, name), [NODE_AUDIENCE]))).id)


def says(pod: dict[str, Any], *more: str, **changes: str) -> Attestation:
    """What a node agent reports of a process in `pod`, honest but for `changes`."""
    meta = pod["metadata"]
    said = {
        "ns": meta["namespace"],
        "sa": pod["spec"]["serviceAccountName"],
        "pod-name": meta["name"],
        "pod-uid": meta["uid"],
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return attestation(*(f"k8s:{name}:{value}" for name, value in said.items()), "unix:uid:7", *more)


async def given(server: Parts, node: Node, *of: Attestation) -> list[str]:
    """The paths it would be given."""
    entitlements, _ = await server.workloads.resolve(node, of)
    return [one.id.path for each in entitlements for one in each.identities]


async def test_an_honest_node_agent_speaks_for_its_pod(tmp_path: Path) -> None:
    """Whatever else it says of the pod is taken from the API instead."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await admitted(api, server)
        pod = api.add_pod("shop", "cart-0", node="worker-1", account="cart", labels={"app": "cart"})
        assert await given(server, node, says(pod)) == ["/shop/cart", "/shop", "/plain"]
        assert "/main" in await given(server, node, says(pod, "k8s:container-name:main"))


LIES: dict[str, dict[str, str]] = {
    "another service account": {"sa": "cart"},
    "another account and name": {"sa": "cart", "pod_name": "cart-0"},
    "another namespace": {"ns": "shop"},
    "a label": {"pod_label": "app:cart", "container_name": "main"},
    "an image": {"container_image": "registry.example/safe:1", "container_name": "main"},
    "a container it has not": {"container_name": "other"},
    "no uid of a pod": {"pod_uid": "x"},
    "a path": {"pod_name": "../../shop/pods/cart-0"},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_about_its_own_pod_gives_nothing_more(tmp_path: Path, lie: str) -> None:
    """The pod of another team runs on this very machine; what it may have stays what the API says of it."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await admitted(api, server)
        api.add_pod("shop", "cart-0", node="worker-2", account="cart", labels={"app": "cart"})
        pod = api.add_pod("other", "job-0", node="worker-1")
        assert await given(server, node, says(pod, **LIES[lie])) == ["/plain"]


async def test_a_pod_of_another_machine_is_not_its_to_speak_for(tmp_path: Path) -> None:
    """Its uid, name, namespace and account are all true. Neither a leaf nor a token; and explain says why."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await admitted(api, server)
        api.add_node("worker-2")
        pod = api.add_pod("shop", "cart-0", node="worker-2", account="cart")
        lie = says(pod)
        assert await given(server, node, lie) == ["/plain"]
        (told,), _ = await server.workloads.resolve(node, [lie], explain=True)
        assert told.unmatched[0].reason == "the cluster says that this pod runs on another node"
        (result,) = await server.workloads.sign(node, [wants("/shop/cart", lie)], server.clock.now())
        assert isinstance(result, Refusal)
        assert result.code == "not-entitled"
        item = JwtItem(attestation=lie, id=DOMAIN.member("/shop/cart"), audience=("a",))
        with pytest.raises(Exception, match="no rule gives"):
            await server.workloads.sign_jwt(node, item, server.clock.now())


async def test_the_same_name_in_another_life_is_another_pod(tmp_path: Path) -> None:
    """The uid is compared; and two claims at once are none."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await admitted(api, server)
        old = api.add_pod("shop", "cart-0", node="worker-1", account="cart")
        new = api.add_pod("shop", "cart-0", node="worker-1", account="cart")
        assert await given(server, node, says(old)) == ["/plain"]
        assert "/shop/cart" in await given(server, node, says(new))
        assert await given(server, node, says(new, f"k8s:pod-uid:{old['metadata']['uid']}")) == ["/plain"]


async def test_a_node_that_proved_no_machine_speaks_for_no_pod(tmp_path: Path) -> None:
    """A join token says nothing of a cluster; nor does a selector the node agent made up."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await server.join("web-1")
        pod = api.add_pod("shop", "cart-0", node="worker-1", account="cart")
        forged = says(pod, "k8s_psat:cluster:prod", "k8s_psat:agent_node_name:worker-1", "k8s_psat:agent_ns:sojourn")
        assert await given(server, node, forged) == ["/plain"]
        made_up = attestation("k8s_token:x", "node:name:x", "k8s_psat:agent_ns:sojourn", "unix:uid:7")
        assert await given(server, node, made_up) == ["/plain"]


async def test_an_api_that_is_away_neither_gives_nor_takes(tmp_path: Path) -> None:
    """What was read lately holds; an unknown pod has to wait, and holds up no other item of a signature."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await admitted(api, server)
        known = api.add_pod("shop", "cart-0", node="worker-1", account="cart")
        stranger = api.add_pod("shop", "cart-1", node="worker-1", account="cart")
        of = says(known)
        assert "/shop/cart" in await given(server, node, of)
        api.status = 503
        await server.clock.advance(10)
        assert "/shop/cart" in await given(server, node, of)
        items = [
            wants("/shop/cart", says(stranger)),
            wants("/shop/cart", of),
            wants("/plain", attestation("unix:uid:7")),
        ]
        first, second, third = await server.workloads.sign(node, items, server.clock.now())
        assert isinstance(first, Refusal)
        assert first.code == "unavailable"
        assert isinstance(second, Signed)
        assert isinstance(third, Signed)
        await server.clock.advance(400)
        with pytest.raises(Unavailable):
            await server.workloads.resolve(node, [of])


async def test_a_pod_that_is_gone_gives_nothing(tmp_path: Path) -> None:
    """After what was read of it is no longer fresh."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await admitted(api, server)
        pod = api.add_pod("shop", "cart-0", node="worker-1", account="cart")
        assert "/shop/cart" in await given(server, node, says(pod))
        api.remove(pod)
        await server.clock.advance(6)
        assert await given(server, node, says(pod)) == ["/plain"]


async def test_a_pod_that_can_t_be_read_holds_up_nobody_else(tmp_path: Path) -> None:
    """A tenant may write what the API takes and we do not: it has no identity, and its neighbours have theirs."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node = await admitted(api, server)
        honest = api.add_pod("shop", "cart-0", node="worker-1", account="cart")
        odd = api.add_pod("shop", "odd-0", node="worker-1", account="cart")
        odd["status"]["containerStatuses"][0]["image"] = "x" * 5000
        assert await given(server, node, says(odd), says(honest)) == ["/plain", "/shop/cart", "/shop", "/plain"]


@pytest.mark.parametrize("strength", [Strength.CONTAINER, Strength.POD, Strength.TPM])
async def test_a_strength_is_not_had_by_saying_so(tmp_path: Path, strength: Strength) -> None:
    """A process in no pod: nothing the server could check makes it worth more than its user; explain says so."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        lie = attestation("unix:uid:9", strength=strength)
        for node in (await admitted(api, server), await server.join("web-1")):
            assert await given(server, node, lie) == []
            (told,), _ = await server.workloads.resolve(node, [lie], explain=True)
            assert f"the node agent says `{strength}`" in told.unmatched[0].reason
            (result,) = await server.workloads.sign(node, [wants("/strong", lie)], server.clock.now())
            assert isinstance(result, Refusal)
        pod = api.add_pod("other", "job-0", node="worker-1")
        meta = pod["metadata"]
        named = [f"k8s:ns:{meta['namespace']}", f"k8s:pod-name:{meta['name']}", f"k8s:pod-uid:{meta['uid']}"]
        node = await server.node((await prove(server, api.token(node_agent(api, "worker-1"), [NODE_AUDIENCE]))).id)
        assert await given(server, node, attestation(*named, "unix:uid:9", strength=Strength.POD)) == ["/strong"]
