"""What the chart renders works: every pod of it runs here as its template says, and identities come out."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier, load_pem_x509_certificates

from chart.installed import PARTS, RULE, SOCKET, TOKEN, Installed, installed
from chart.volumes import give
from journeys.leading import told
from journeys.processes import ROOT, Running

AGENT = [sys.executable, str(ROOT / "tests" / "journeys" / "agent.py")]
BUNDLE = """
import asyncio, json
from pathlib import Path
from attestor.client.admin import AdminClient
async def main():
    async with AdminClient(Path("/run/sojourn/admin/server.sock")) as admin:
        print(json.dumps((await admin.get("/v1/bundle"))["bundle"]))
asyncio.run(main())
"""


@dataclass(kw_only=True)
class Cluster:
    """The chart with all its pods running."""

    chart: Installed
    server: Running
    node_agent: Running
    broker: Running

    @property
    def told(self) -> dict[str, str]:
        """What a workload is told."""
        return {
            "SPIFFE_ENDPOINT_SOCKET": "unix:///run/sojourn/agent/workload.sock",
            "SOJOURN_BROKER": f"https://demo-sojourn-broker.trust.svc:{self.chart.ports[8443]}",
        }

    async def operator(self, part: str, running: Running, *command: str) -> Any:
        """What a command answers that an operator runs in the container of a part."""
        name = "server" if part == "attestor-server" else part
        socket = f"/run/sojourn/admin/{name}.sock"
        return json.loads(await self.chart.execute(part, running, "sojourn", *command, "--json", "--socket", socket))

    async def explained(self, pid: int) -> Any:
        """By the command the notes name."""
        return await self.operator("node-agent", self.node_agent, "rule", "explain", "--pid", str(pid))

    async def ended(self, task: str) -> str:
        """Why it did, once it has; as the broker's operators hear it."""
        where = ("env", f"PYTHONPATH={ROOT}:{ROOT / 'tests'}", "python", str(ROOT / "tests" / "chart" / "watching.py"))
        said = await self.chart.execute("broker", self.broker, *where, "/run/sojourn/admin/broker.sock", task)
        return said.strip()


async def started_server(chart: Installed, stack: AsyncExitStack) -> Running:
    """The first step, and the ConfigMap of the second."""
    server = await stack.enter_async_context(chart.run("attestor-server"))
    await chart.ready("attestor-server")
    bundle = await chart.execute("attestor-server", server, "python", "-c", BUNDLE)
    chart.machine.config_maps["sojourn-bundle"] = {"bundle.json": bundle.encode()}
    return server


@asynccontextmanager
async def everything() -> AsyncIterator[Cluster]:
    """Step by step as the notes say."""
    async with installed() as chart, AsyncExitStack() as stack:
        server = await started_server(chart, stack)
        node_agent = await stack.enter_async_context(chart.run("node-agent"))
        await chart.ready("node-agent")
        broker = await stack.enter_async_context(chart.run("broker"))
        await chart.ready("broker")
        yield Cluster(chart=chart, server=server, node_agent=node_agent, broker=broker)


def ids(explained: Any) -> list[str]:
    """What a process would be given."""
    return [one["spiffe_id"] for one in explained["identities"]]


def pod_of(explained: Any) -> dict[str, Any]:
    """What a process is in, as an instance."""
    (pod,) = [one for one in explained["within"] if one["kind"] == "pod"]
    return dict(pod)


async def keys(cluster: Cluster, server: Running) -> list[tuple[str, str]]:
    """What the authority signs with."""
    found = await cluster.operator("attestor-server", server, "ca", "show")
    return [(one["kind"], one["key_id"]) for one in found["authorities"] if one["state"] == "active"]


async def test_an_identity_and_a_task_for_as_long_as_the_pod() -> None:
    """The node by its token, the broker and a workload by their service accounts; the pod's end is the task's."""
    async with everything() as cluster:
        chart = cluster.chart
        (node,) = (await cluster.operator("attestor-server", cluster.server, "node", "list"))["nodes"]
        assert (node["method"], node["state"]) == ("k8s_psat", "admitted")
        assert "k8s_psat:agent_node_name:worker-1" in node["selectors"]
        assert ids(await cluster.explained(cluster.broker.pid)) == ["spiffe://example.org/sojourn/broker"]
        cart = chart.workload("cart-0", AGENT, cluster.told, SOCKET)
        await chart.api.stir()
        async with cart.run() as workload:
            task = (await told(workload, "open", "task"))["task"]
            assert (await told(workload, "state", "state"))["state"] == "active"
            seen = await cluster.explained(workload.pid)
            assert (ids(seen), seen["strength"]) == (["spiffe://example.org/shop/cart"], "pod")
            assert pod_of(seen)["watched"]
            assert pod_of(seen)["instance"]
            (systemd,) = [one for one in seen["sources"] if one["name"] == "systemd"]
            assert "cgroup namespace of its own" in systemd["unsaid"]
            command = (
                "sojourn",
                "task",
                "open",
                "--purpose",
                "by hand",
                "--lasts",
                "10m",
                "--json",
                "--state",
                "/tmp/s",
            )
            done = await cart.execute(workload, *command)
            assert done.code == 0, done.err
        assert await cluster.ended(task) == "failed process-ended"
        for part in PARTS:
            assert "sojourn_ready 1.0" in await chart.metrics(part)


async def test_killed_processes_come_again_on_what_they_left() -> None:
    """A container that is started again finds its volumes: keys, stores, journal and the sockets of a dead process.

    So the pod of an agent goes on with the instance and the task it had.
    """
    async with everything() as cluster, AsyncExitStack() as stack:
        cart = cluster.chart.workload("cart-0", AGENT, cluster.told, SOCKET)
        await cluster.chart.api.stir()
        workload = await stack.enter_async_context(cart.run())
        await told(workload, "open", "task")
        instance = pod_of(await cluster.explained(workload.pid))["instance"]
        before = await keys(cluster, cluster.server)
        for part, running in zip(PARTS, (cluster.server, cluster.node_agent, cluster.broker), strict=True):
            os.killpg(running.pid, signal.SIGKILL)
            await running.ended()
            again = await stack.enter_async_context(cluster.chart.run(part))
            await cluster.chart.ready(part)
            match part:
                case "attestor-server":
                    assert await keys(cluster, again) == before
                case "node-agent":
                    seen = await cluster.operator(part, again, "rule", "explain", "--pid", str(workload.pid))
                    assert (pod_of(seen)["instance"], pod_of(seen)["watched"]) == (instance, True)
        assert (await told(workload, "state", "state"))["state"] == "active"


async def test_a_pod_attests_by_itself_where_that_is_switched_on() -> None:
    """With a token for the audience of pods and the bundle; no node agent runs."""
    async with installed(direct=True, rules=[{**RULE, "nodes": ["node:direct"]}]) as chart, AsyncExitStack() as stack:
        await started_server(chart, stack)
        server = f"https://demo-sojourn-attestor-server.trust.svc:{chart.ports[8444]}"
        command = ["sojourn", "svid", "direct", "/tmp/svid", "--server", server, "--trust-domain", "example.org"]
        command += ["--trust-bundle", "/etc/sojourn-bundle/bundle.json", "--platform", "kubernetes", "--once"]
        cart = chart.workload("cart-0", command, {}, TOKEN)
        await chart.api.stir()
        async with cart.run() as workload:
            assert await workload.ended() == 0, workload.errors.read_text()
        written = cart.volumes["tmp"] / "svid" / "current" / "svid.pem"
        (leaf, *_) = load_pem_x509_certificates(written.read_bytes())
        names = leaf.extensions.get_extension_for_class(SubjectAlternativeName).value
        assert names.get_values_for_type(UniformResourceIdentifier) == ["spiffe://example.org/shop/cart"]


async def test_keys_that_were_opened_to_the_group_are_refused() -> None:
    """As by a kubelet that lays `fsGroup` over a volume again: somebody may have been there already."""
    async with installed() as chart, AsyncExitStack() as stack:
        server = await started_server(chart, stack)
        os.killpg(server.pid, signal.SIGKILL)
        await server.ended()
        give(chart.containers["attestor-server"].volumes["state"], 1000, writable=True)
        async with chart.run("attestor-server") as again:
            assert await again.ended() != 0
            assert "has the mode `2770`: expected `0700`" in again.errors.read_text()
