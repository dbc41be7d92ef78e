"""What a node agent says of pods, held against what their cluster says (traps 2).

A rooted machine must speak for its own pods and for nobody else's. So of a node agent's selectors of type `k8s` the
server believes two: which pod (its uid), and which container of it. Everything else it takes from the API, and only
when that pod runs on the very machine the node proved to be. A node that proved no machine of a cluster has nothing to
compare with: its `k8s` selectors are dropped, unless the settings trust such nodes.

With a watch the view is as new as the API's last word. Without one, or while it is broken, a pod is read when it was
not read just now; what was read lately is good enough while the API does not answer, because a pod never moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from attestor.instance import Strength
from attestor.methods.node import k8s_psat
from attestor.methods.platform.cluster import Cluster
from attestor.methods.platform.pods import KIND, Pod, Unreadable, parse_uid, read_pod
from attestor.methods.platform.protocol import counted
from attestor.selector import Selectors
from attestor.server.store.nodes import Node
from attestor.wire.attestation import Attestation
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.kubernetes import Changed, Listed

FRESH = 5.0
"""Seconds for which a pod that was read need not be read again."""
STALE = 300.0
"""Seconds after which what was read is not good enough even while the API is away."""
MOST_READ = 20_000

_log = log.get(__name__)
_Key = tuple[str, str]  # cluster, uid


@dataclass(frozen=True, slots=True)
class Believed:
    """An attestation without what is not believed, and why something was left out; empty when nothing was."""

    attestation: Attestation
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    pod: Pod | None
    at: float


@dataclass(frozen=True, slots=True)
class _Claim:
    """Which pod a node agent speaks of."""

    cluster: Cluster
    node: str
    uid: str
    namespace: str
    name: str
    container: str | None


class PodView:
    """One for each server process."""

    def __init__(self, clusters: Mapping[str, Cluster], clock: Clock, *, trust_node_agents: bool = False) -> None:
        self._clusters, self._clock, self._trusting = clusters, clock, trust_node_agents
        self._watched: dict[str, dict[str, Pod]] = {}
        self._read: dict[_Key, _Seen] = {}

    async def believe(self, node: Node, attestations: Sequence[Attestation]) -> list[Believed | Problem]:
        """Each as far as it is believed; a Problem where the cluster has to be asked and does not answer."""
        return list(await asyncio.gather(*(self._one(node, each) for each in attestations)))

    async def follow(self, cluster: Cluster, now: datetime) -> None:  # noqa: ARG002 -- the signature of a tick
        """Watch the cluster's pods until the link breaks. Raises Unavailable, whatever it was: it is tried again."""
        try:
            with counted(cluster.count, "watch"):
                async for step in cluster.api.watch("/api/v1/pods"):
                    self._hear(cluster.name, step)
        except Problem as problem:
            raise Unavailable(f"the pods of the cluster `{cluster.name}` can't be watched: {problem}") from problem
        finally:
            self._watched.pop(cluster.name, None)

    def watches(self, cluster: str) -> bool:
        """Whether the view of `cluster` is as new as the API's last word."""
        return cluster in self._watched

    def missing(self, cluster: str, uid: str) -> bool:
        """Whether a watch is in force and does not show that pod alive; one just made may not have come yet."""
        pods = self._watched.get(cluster)
        if pods is None:
            return False
        return uid not in pods or pods[uid].ending

    async def look_up(self, cluster: Cluster, namespace: str, name: str, uid: str) -> Pod | None:
        """The pod with that uid. Raises Malformed, Unavailable."""
        pod = self._watched.get(cluster.name, {}).get(uid)
        if pod is not None:
            return pod
        seen, now = self._read.get((cluster.name, uid)), self._clock.boot()
        if seen is not None and now - seen.at < FRESH:
            return seen.pod
        try:
            found = await cluster.pod(namespace, name)
        except (Malformed, Unreadable):
            raise
        except Problem as problem:
            if seen is not None and seen.pod is not None and now - seen.at < STALE:
                return seen.pod
            raise Unavailable(f"the cluster `{cluster.name}` can't be asked about pods: {problem}") from problem
        found = found if found is not None and found.uid == uid else None
        self._remember((cluster.name, uid), _Seen(found, now))
        return found

    async def _one(self, node: Node, attestation: Attestation) -> Believed | Problem:
        claimed = frozenset(one for one in attestation.selectors if one.type == KIND)
        if not claimed:
            return self._without_claim(node, attestation)
        others = attestation.selectors - claimed
        cluster = self._clusters.get(_fact(node.selectors, "cluster") or "")
        if cluster is None:
            return self._without_cluster(node, attestation, others)
        try:
            pod, container = await self._pod(cluster, _fact(node.selectors, "agent_node_name") or "", claimed)
        except Problem as problem:
            # Who makes a pod that can't be read must not hold up those that are asked about beside it.
            if isinstance(problem, Unavailable) and not isinstance(problem, Unreadable):
                return problem
            return Believed(_without_pod(attestation, others), str(problem))
        strength = min(attestation.strength, Strength.POD)  # nothing was checked here that is worth more
        return Believed(replace(attestation, selectors=others | pod.selectors(container), strength=strength))

    def _without_claim(self, node: Node, attestation: Attestation) -> Believed:
        """A strength is a claim too: more than a user's is worth nothing without a pod that can be checked."""
        if attestation.strength <= Strength.OWN_UID or self._trusts(node):
            return Believed(attestation)
        doubt = f"the node agent says `{attestation.strength}` of a process and names no pod: that can't be checked"
        return Believed(_without_pod(attestation, attestation.selectors), doubt)

    def _trusts(self, node: Node) -> bool:
        return self._trusting and node.method != k8s_psat.METHOD

    def _without_cluster(self, node: Node, attestation: Attestation, others: Selectors) -> Believed:
        if self._trusts(node):
            return Believed(attestation)
        return Believed(
            _without_pod(attestation, others),
            "this node proved no machine of a cluster the server knows, so it can't speak of pods",
        )

    async def _pod(self, cluster: Cluster, node: str, claimed: Selectors) -> tuple[Pod, str | None]:
        """The pod meant, and which of its containers. Raises Malformed when it is not this node's, Unavailable."""
        uid = parse_uid(_single(claimed, "pod-uid"))
        pod = await self.look_up(cluster, _single(claimed, "ns"), _single(claimed, "pod-name"), uid)
        if pod is None:
            raise Malformed(f"the cluster `{cluster.name}` knows no pod with that name and uid")
        if not node or pod.node != node:
            raise Malformed("the cluster says that this pod runs on another node")
        containers = [one.value for one in claimed if one.value.startswith("container-name:")]
        container = _single(claimed, "container-name") if containers else None
        if container is not None and pod.container(container) is None:
            raise Malformed("the cluster says that this pod has no container of that name")
        return pod, container

    def _hear(self, cluster: str, step: Listed | Changed) -> None:
        if isinstance(step, Listed):
            found = (_readable(one) for one in step.items)
            self._watched[cluster] = {pod.uid: pod for pod in found if pod is not None}
            return
        pod = _readable(step.object)
        if pod is None:
            return
        if step.kind == "deleted":
            self._watched[cluster].pop(pod.uid, None)
            self._remember((cluster, pod.uid), _Seen(None, self._clock.boot()))
        else:
            self._watched[cluster][pod.uid] = pod

    def _remember(self, key: _Key, seen: _Seen) -> None:
        if len(self._read) >= MOST_READ:
            limit = self._clock.boot() - STALE
            self._read = {one: kept for one, kept in self._read.items() if kept.at > limit}
            if len(self._read) >= MOST_READ:
                self._read.clear()
        self._read[key] = seen


def _without_pod(attestation: Attestation, others: Selectors) -> Attestation:
    """Nor is it worth a pod: what its user is worth was not said, so the least is taken."""
    strength = attestation.strength if attestation.strength <= Strength.OWN_UID else Strength.SHARED_UID
    return replace(attestation, selectors=others, strength=strength)


def _readable(found: Mapping[str, object]) -> Pod | None:
    """A pod that can't be read is not in the view; it is asked for by itself, and its fault told then."""
    try:
        return read_pod(found)
    except Unreadable as problem:
        _log.warning("a pod can't be read", error=problem)
        return None


def _fact(selectors: Selectors, name: str) -> str | None:
    """What the server verified about a node."""
    beginning = f"{name}:"
    found = [
        one.value.removeprefix(beginning)
        for one in selectors
        if one.type == k8s_psat.METHOD and one.value.startswith(beginning)
    ]
    return found[0] if len(found) == 1 else None


def _single(claimed: Selectors, name: str) -> str:
    beginning = f"{name}:"
    found = [one.value.removeprefix(beginning) for one in claimed if one.value.startswith(beginning)]
    if len(found) != 1:
        raise Malformed(f"the node agent names not exactly one `{KIND}:{name}`")
    return found[0]
