"""The sources a node agent looks at processes with: those that settings name, in the order of the visible table."""

from __future__ import annotations

from contextlib import AsyncExitStack

from attestor.methods.workload import load
from attestor.methods.workload.kubelet import Kubelet, fetcher
from attestor.methods.workload.protocol import WorkloadSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.settings import KubernetesSourceSettings, NodeAgentSettings
from ca.runtime.clock import Clock
from ca.runtime.metrics import Metrics


async def open_attestor(stack: AsyncExitStack, settings: NodeAgentSettings, clock: Clock, metrics: Metrics) -> Attestor:
    """Looks at processes until `stack` is left."""

    def count(source: str, outcome: str) -> None:
        metrics.count("sojourn_attestation_sources_total", source=source, outcome=outcome)

    unix = load("unix").UnixSource(discover_path=settings.unix.path, hash_limit=settings.unix.hash_limit, clock=clock)
    stack.callback(unix.close)
    sources: list[WorkloadSource] = [unix]
    if settings.systemd:
        sources.append(load("systemd").SystemdSource())
    if settings.kubernetes is not None:
        sources.append(await _kubernetes(stack, settings.kubernetes, clock))
    parents = settings.kubernetes.cgroup_parents if settings.kubernetes else ()
    return Attestor(sources, shared_uids=settings.unix.shared_uids, parents=parents, count=count)


async def _kubernetes(stack: AsyncExitStack, settings: KubernetesSourceSettings, clock: Clock) -> WorkloadSource:
    where = settings.kubelet.resolved()
    kubelet = Kubelet(where, await stack.enter_async_context(fetcher(where)), clock)
    source: WorkloadSource = load("k8s").KubernetesSource(
        kubelet, clock, patience=settings.patience, parents=settings.cgroup_parents
    )
    return source
