"""A cluster as the attestor server knows it, over the fake API, and node agents that come from it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attestor.conversation import pipe
from attestor.methods.node.k8s_psat import METHOD, Verifier, VerifierSettings
from attestor.methods.platform.cluster import Cluster, ClusterSettings
from attestor.server.pods import PodView
from attestor.wire.node import Admission
from ca.runtime.kubernetes import Kubernetes
from fakes.attestor_parts import Parts, csr, parts
from fakes.clock import ManualClock
from fakes.kubernetes import FakeCluster, cluster

NODE_AUDIENCE, POD_AUDIENCE = "sojourn-node", "sojourn"
AGENT = ("sojourn", "node-agent")


@asynccontextmanager
async def known(folder: Path, name: str = "prod", **changes: Any) -> AsyncIterator[tuple[FakeCluster, Cluster]]:
    """A cluster, and what the attestor server has of it; its time is that of `ManualClock`."""
    async with cluster(folder / name, now=ManualClock().now) as api:
        settings = ClusterSettings(
            **{"name": name, "api": api.settings, "node_agents": ("/".join(AGENT),), "watch": False, **changes}
        )
        async with Kubernetes(settings.api) as client:
            yield api, Cluster(settings, client)


@asynccontextmanager
async def with_nodes(
    folder: Path, rules: str = "rules: []", name: str = "{cluster}-{node-uid}", **changes: Any
) -> AsyncIterator[tuple[FakeCluster, Parts]]:
    """A server's parts that admit the node agents of the cluster `prod`."""
    async with known(folder, **changes) as (api, one):
        verifiers = {METHOD: partial(Verifier, VerifierSettings(name=name), {one.name: one})}
        view = PodView({one.name: one}, clock := ManualClock())
        async with parts(folder, rules, verifiers=verifiers, pods=view, clock=clock) as server:
            yield api, server


def node_agent(api: FakeCluster, node: str, **changes: Any) -> dict[str, Any]:
    """A pod of the DaemonSet on `node`."""
    if node not in api.nodes:
        api.add_node(node, {"zone": "a", "secret": "x"})
    namespace, account = AGENT
    labels = {"app": "node-agent", "rev": "1"}
    return api.add_pod(
        namespace, f"node-agent-{node}", **{"node": node, "account": account, "labels": labels, **changes}
    )


async def prove(server: Parts, token: str, name: str = "prod", **changes: Any) -> Admission:
    """What a node agent with that token is given."""
    ours, theirs = pipe()
    said: Mapping[str, Any] = {"cluster": name, "token": token, **changes}
    await ours.send(json.dumps(said).encode())
    return await server.admission.attest(METHOD, csr(), theirs, server.clock.now())
