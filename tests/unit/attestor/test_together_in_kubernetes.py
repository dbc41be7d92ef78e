"""Server, node agent and a process in a pod: the node proven by its cluster, the pod by cgroup, kubelet and API."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestor.methods.node.k8s_psat import ProverSettings, VerifierSettings
from attestor.methods.platform.cluster import ClusterSettings
from attestor.node_agent import serve as node_agent
from attestor.node_agent.settings import KubernetesSourceSettings, NodeAgentSettings
from attestor.server.settings import NodeMethods
from ca.runtime.process import Readiness
from fakes import clusters
from fakes.cgroups import cgroup
from fakes.commands import ended
from fakes.identity_side import CLOCK, address, server, settings
from fakes.kubelet import FakeKubelet, kubelet
from fakes.kubernetes import FakeCluster, cluster

RULES = """
rules:
  - name: cart
    nodes: ["k8s_psat:cluster:prod"]
    when: ["k8s:ns:shop", "k8s:sa:cart", "k8s:container-name:main", "k8s:pod-label:app:cart"]
    spiffe_id: /{k8s.ns}/{k8s.sa}
"""


@dataclass
class Machine:
    """`worker-1` of the cluster, with a node agent on it."""

    api: FakeCluster
    kubelet: FakeKubelet
    chosen: NodeAgentSettings

    def run(self, **changes: Any) -> dict[str, Any]:
        """A pod that really runs here; `changes` are what the API says instead."""
        pod = self.api.add_pod("shop", "cart-0", node="worker-1", account="cart", labels={"app": "cart"})
        here: dict[str, Any] = json.loads(json.dumps(pod))
        self.kubelet.pods[:] = [here]
        for name, value in changes.items():
            pod["spec"][name] = value
        return here

    async def fetch(self, pod: dict[str, Any]) -> tuple[int, str]:
        """What a process in the pod's container is given: exit code, and what it says."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        with cgroup(f"2:/kubepods/burstable/pod{pod['metadata']['uid']}/{container}") as place:
            enter = f"echo $$ > {place}/cgroup.procs; exec {sys.executable} -m broker svid fetch --json"
            process = await asyncio.create_subprocess_exec(
                "sh",
                "-c",
                f"{enter} --socket {address(self.chosen)}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            code, out, err = await ended(process)
        return code, out or err


@asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[Machine]:
    """All of it, for at most a minute."""
    (folder / "rules.yaml").write_text(RULES)
    async with asyncio.timeout(60), cluster(folder / "prod") as api, kubelet(folder) as fake:
        known = ClusterSettings(name="prod", api=api.settings, node_agents=("/".join(clusters.AGENT),), watch=False)
        (folder / "token").write_text(api.token(clusters.node_agent(api, "worker-1"), [clusters.NODE_AUDIENCE]))
        methods = NodeMethods(k8s_psat=VerifierSettings())
        async with server(folder, clusters=(known,), node_methods=methods) as one:
            changes = {
                "attest": ProverSettings(method="k8s_psat", cluster="prod", token_file=folder / "token"),
                "root_key_hash": one.root_key_hash,
                "kubernetes": KubernetesSourceSettings(kubelet=fake.settings()),
            }
            chosen, readiness = settings(folder, one.address[1]).model_copy(update=changes), Readiness()
            async with node_agent.serve(chosen, CLOCK, readiness):
                await readiness.until_ready()
                yield Machine(api, fake, chosen)


async def test_a_process_in_a_pod_is_who_its_pod_is(tmp_path: Path) -> None:
    """Nobody brought a token, and no rule names a machine."""
    async with machine(tmp_path) as one:
        code, said = await one.fetch(one.run())
        assert code == 0, said
        assert [each["spiffe_id"] for each in json.loads(said)] == ["spiffe://example.org/shop/cart"]


async def test_a_pod_the_cluster_has_elsewhere_is_nobody_here(tmp_path: Path) -> None:
    """Everything on the machine agrees, kubelet and kernel too: it is rooted. The API does not."""
    async with machine(tmp_path) as one:
        code, said = await one.fetch(one.run(nodeName="worker-2"))
        assert code == 1
        assert "identity" in said
