"""Nodes that are no longer what they proved to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestor.methods.node import k8s_psat
from attestor.selector import parse_all
from attestor.server.node_checks import Check, NodeChecks
from attestor.server.store.nodes import Node, NodeState
from fakes.attestor_parts import Parts, attestation, wants
from fakes.clusters import NODE_AUDIENCE, known, node_agent, prove, with_nodes
from fakes.kubernetes import FakeCluster

RULES = "rules: [{name: a, nodes: ['k8s_psat:cluster:prod'], when: ['unix:uid:7'], spiffe_id: /a}]"


def checks(server: Parts) -> NodeChecks:
    """As a server makes them."""
    clusters = server.workloads._pods._clusters

    async def machine(node: Node, now: object) -> str:
        return await k8s_psat.departed(clusters, node.selectors)

    found: dict[str, Check] = {"k8s_psat": machine}
    return NodeChecks(server.database, server.admission, found)


async def admitted(api: FakeCluster, server: Parts) -> Node:
    """A node of the cluster, with an instance."""
    return await server.node((await prove(server, api.token(node_agent(api, "worker-1"), [NODE_AUDIENCE]))).id)


async def state(server: Parts, node: Node) -> NodeState:
    """What became of it."""
    return (await server.node(server.peer_id(node.id))).state


async def test_a_machine_that_was_replaced_is_sent_away(tmp_path: Path) -> None:
    """It would speak for the pods of its successor of the same name; its instances end with it."""
    async with with_nodes(tmp_path, RULES) as (api, server):
        node, looking = await admitted(api, server), checks(server)
        of = attestation("unix:uid:7")
        await server.workloads.sign(node, [wants("/a", of)], server.clock.now())
        await server.clock.advance(299)
        api.add_node("worker-1")
        await looking.tick(server.clock.now())
        assert await state(server, node) is NodeState.ADMITTED, "it is not due yet"
        await server.clock.advance(1)
        await looking.tick(server.clock.now())
        assert await state(server, node) is NodeState.EVICTED
        assert await server.instances.state(of.instance) == "ended"


async def test_a_machine_that_left_is_sent_away_and_may_come_back(tmp_path: Path) -> None:
    """When it can prove itself again."""
    async with with_nodes(tmp_path) as (api, server):
        node, looking = await admitted(api, server), checks(server)
        gone = api.nodes.pop("worker-1")
        await server.clock.advance(300)
        await looking.tick(server.clock.now())
        assert await state(server, node) is NodeState.EVICTED
        api.nodes["worker-1"] = gone
        again = await admitted(api, server)
        assert (again.id, again.state) == (node.id, NodeState.ADMITTED)


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
async def test_an_api_that_is_away_sends_nobody_away(tmp_path: Path, status: int) -> None:
    """Nor one that refuses us."""
    async with with_nodes(tmp_path) as (api, server):
        node, looking = await admitted(api, server), checks(server)
        await server.join("web-1")
        api.status = status
        await server.clock.advance(300)
        await looking.tick(server.clock.now())
        assert await state(server, node) is NodeState.ADMITTED


async def test_what_the_settings_no_longer_allow_has_departed(tmp_path: Path) -> None:
    """A cluster that was taken out, an account that was."""
    async with known(tmp_path, node_agents=("sojourn/other",)) as (api, cluster):
        uid = api.add_node("worker-1")["metadata"]["uid"]
        facts = ("cluster:prod", "agent_ns:sojourn", "agent_sa:{}", "agent_node_name:worker-1", f"agent_node_uid:{uid}")

        def selectors(account: str) -> list[str]:
            return [f"k8s_psat:{one.format(account)}" for one in facts]

        clusters = {"prod": cluster}
        assert await k8s_psat.departed(clusters, parse_all(selectors("other"))) == ""
        assert "service account" in await k8s_psat.departed(clusters, parse_all(selectors("node-agent")))
        assert "cluster" in await k8s_psat.departed({}, parse_all(selectors("other")))
        assert await k8s_psat.departed(clusters, parse_all(["node:name:x"])) != ""
