"""The chart, installed: its default case with one rule, and every pod of it run as its template says.

The commands, their files, folders, users, mounts and tokens are those that were rendered. `here` is all that is
changed: on one machine ports must be free ones, and nothing listens but on loopback. The Kubernetes API and the kubelet
are fakes that speak over TLS what the real ones speak.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from ca.runtime.clock import SystemClock
from chart.container import Container
from chart.rendering import read
from chart.volumes import Machine
from fakes.kubelet import FakeKubelet, kubelet
from fakes.kubernetes import FakeCluster, cluster
from journeys.processes import PATIENCE, Finished, Running, short_folder
from servers.standing import free_port

NAMESPACE, NODE = "trust", "worker-1"
PARTS = ("attestor-server", "node-agent", "broker")
NODES = ["k8s_psat:cluster:kubernetes"]
RULE = {
    "name": "cart",
    "nodes": NODES,
    "when": ["k8s:ns:shop", "k8s:sa:cart"],
    "spiffe_id": "/{k8s.ns}/{k8s.sa}",
    "bind": "pod",
}
PORTS = (8081, 8443, 8444, 9081, 9082, 9083)
SOCKET: Mapping[str, Mapping[str, Any]] = {
    "/run/sojourn/agent": {"hostPath": {"path": "/run/sojourn/agent", "type": "Directory"}}
}
"""As the notes say."""
TOKEN: Mapping[str, Mapping[str, Any]] = {
    "/var/run/secrets/sojourn": {
        "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "sojourn"}}]}
    },
    "/etc/sojourn-bundle": {"configMap": {"name": "sojourn-bundle"}},
}
"""Of a pod that attests by itself."""
CLOCK = SystemClock()


def here(text: str, ports: Mapping[int, int]) -> str:
    """What is another here than in a cluster."""
    text = text.replace("0.0.0.0", "127.0.0.1")
    return re.sub(r"(?m)^( *port: )(\d+)$", lambda found: f"{found[1]}{ports.get(int(found[2]), found[2])}", text)


@dataclass(kw_only=True)
class Installed:
    """A cluster of one machine with the chart in it."""

    folder: Path
    api: FakeCluster
    kubelet: FakeKubelet
    machine: Machine
    objects: list[dict[str, Any]]
    notes: str
    ports: dict[int, int] = field(default_factory=lambda: {port: free_port() for port in PORTS})
    containers: dict[str, Container] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """What the names of the parts begin with."""
        return "demo-sojourn"

    @asynccontextmanager
    async def run(self, part: str) -> AsyncIterator[Running]:
        """The pod of a part, for the first time or again."""
        container = self.containers.get(part) or self.container(part)
        async with container.run() as running:
            yield running

    def container(self, part: str) -> Container:
        """As its template says; the API and the kubelet know of its pod."""
        (found,) = [
            one
            for one in self.objects
            if one["kind"] in {"StatefulSet", "DaemonSet"} and one["metadata"]["name"] == f"{self.prefix}-{part}"
        ]
        template, claims = found["spec"]["template"], found["spec"].get("volumeClaimTemplates", ())
        spec = template["spec"]
        pod = self.pod(NAMESPACE, f"{self.prefix}-{part}-0", spec["serviceAccountName"], part)
        self.containers[part] = self._container(part, pod, spec, {one["metadata"]["name"]: one for one in claims})
        return self.containers[part]

    def workload(
        self, name: str, command: list[str], told: Mapping[str, str], volumes: Mapping[str, Mapping[str, Any]]
    ) -> Container:
        """A pod of `shop/cart` with these volumes, read-only, by where they are mounted."""
        pod = self.pod("shop", name, "cart", "main")
        named = {f"v{number}": one for number, one in enumerate(volumes.items())}
        mounts = [{"name": name, "mountPath": place, "readOnly": True} for name, (place, _) in named.items()]
        container = {
            "name": "main",
            "command": command,
            "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
            "env": [{"name": name, "value": value} for name, value in told.items()],
        }
        spec = {
            "securityContext": {"runAsUser": 2000, "runAsGroup": 2000},
            "volumes": [{"name": name, **one} for name, (_, one) in named.items()] + [{"name": "tmp", "emptyDir": {}}],
            "containers": [container],
        }
        return self._container(name, pod, spec, {})

    def pod(self, namespace: str, name: str, account: str, container: str) -> dict[str, Any]:
        """A pod on this machine, known to the API and to the kubelet."""
        found = self.api.add_pod(namespace, name, node=NODE, account=account, containers=(container,))
        self.kubelet.pods.append(json.loads(json.dumps(found)))
        return found

    async def ready(self, part: str) -> Mapping[str, Any]:
        """Return once its readiness probe is answered with 200; the last answer."""
        probe = self._probe(part, "readinessProbe")
        async with aiohttp.ClientSession() as session:
            for _ in range(int(PATIENCE * 5)):
                try:
                    async with session.get(probe) as answer:
                        if answer.status == 200:
                            return dict(await answer.json())
                        last = await answer.text()
                except aiohttp.ClientConnectionError as error:
                    last = str(error)
                await CLOCK.sleep(0.2)
        errors = (self.folder / f"{part}.err").read_text()
        raise AssertionError(f"the {part} does not become ready: {last}\n{errors[-3000:]}")

    async def metrics(self, part: str) -> str:
        """What its metrics Service leads to."""
        url = self._probe(part, "readinessProbe").replace("/readyz", "/metrics")
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 200
            return await answer.text()

    async def execute(self, part: str, running: Running, *command: str) -> str:
        """What a command says that an operator runs in the container of a part."""
        done: Finished = await self.containers[part].execute(running, *command)
        assert done.code == 0, done.err
        return done.out

    def _probe(self, part: str, kind: str) -> str:
        (container,) = self.containers[part].spec["containers"]
        said = container[kind]["httpGet"]
        (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == said["port"]]
        return f"http://127.0.0.1:{self.ports[port]}{said['path']}"

    def _container(
        self, name: str, pod: dict[str, Any], spec: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> Container:
        (container,) = spec["containers"]
        return Container(
            folder=self.folder,
            name=name,
            pod=pod,
            spec=spec,
            volumes=self.machine.volumes(pod, spec, claims),
            hosts=[f"{self.prefix}-{part}.{NAMESPACE}.svc" for part in PARTS],
            environment={
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(self.api.port),
                **{one["name"]: _value(pod, one) for one in container["env"]},
            },
        )


@asynccontextmanager
async def installed(**server: Any) -> AsyncIterator[Installed]:
    """Rendered and applied; no pod runs yet. `server` are further values of the attestor server."""
    with short_folder() as folder:
        async with cluster(folder / "api") as api, kubelet(folder, NODE) as fake:
            api.add_node(NODE)
            notes, objects = read(
                {
                    "attestorServer": {"rules": [RULE], **server},
                    "nodeAgent": {"config": {"systemd": True, "kubernetes": {"kubelet": {"port": fake.port}}}},
                }
            )
            machine = Machine(
                root=folder / "machine", kept=folder / "kept", config_maps={}, secrets={}, token=_tokens(api, fake)
            )
            found = Installed(folder=folder, api=api, kubelet=fake, machine=machine, objects=objects, notes=notes)
            _apply(found)
            yield found


def _apply(found: Installed) -> None:
    machine, roots = found.machine, found.api.authority.pem + found.kubelet.authority.pem
    machine.config_maps["kube-root-ca.crt"] = {"ca.crt": roots}
    machine.secrets["sojourn-seal-key"] = {"seal.key": secrets.token_bytes(32)}
    for one in found.objects:
        if one["kind"] == "ConfigMap":
            data = {name: here(text, found.ports).encode() for name, text in one["data"].items()}
            machine.config_maps[one["metadata"]["name"]] = data


def _tokens(api: FakeCluster, fake: FakeKubelet) -> Any:
    def token(pod: Mapping[str, Any], audience: str | None) -> str:
        """For somebody else, or for the API, where the attestor server and node agents are known by theirs."""
        if audience is not None:
            return api.token(pod, [audience])
        return fake.accepted if pod["spec"]["serviceAccountName"].endswith("node-agent") else api.accepted_token

    return token


def _value(pod: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    if "value" in said:
        return str(said["value"])
    path = str(said["valueFrom"]["fieldRef"]["fieldPath"])
    return {"metadata.name": str(pod["metadata"]["name"]), "spec.nodeName": NODE, "status.hostIP": "127.0.0.1"}[path]
