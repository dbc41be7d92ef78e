"""Which pod and container a process runs in: its cgroup says which, the kubelet of this machine what they are.

    k8s:ns:shop  k8s:sa:cart  k8s:pod-name:cart-0  k8s:pod-uid:…  k8s:pod-label:app:cart
    k8s:container-name:main  k8s:container-image:registry/cart@sha256:…

All selectors are those of `attestor.methods.platform.pods`, and `k8s:pod-open-to-host:true` of a pod that sees the
machine's processes or is privileged: such a one is no boundary. A process in no pod has none, which is no error. A
container is started before the kubelet says so; whoever calls that early waits for it, for a while.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from attestor.instance import Strength
from attestor.methods.platform.pods import KIND, Container
from attestor.methods.workload.cgroup import cgroups_of
from attestor.methods.workload.container import Located, locate
from attestor.methods.workload.kubelet import Kubelet, Running
from attestor.methods.workload.protocol import CantSay, Subject
from attestor.selector import Selector
from ca.errors import Unavailable
from ca.runtime.clock import Clock

PATIENCE = timedelta(seconds=20)
"""For how long a container may run before the kubelet knows of it."""
STALE = 300.0
"""Seconds for which an answer counts while the kubelet gives no newer one: a container never changes its pod."""
MOST_SELECTORS = 128

_OPEN = Selector(KIND, "pod-open-to-host:true")


class KubernetesSource:
    """Selectors of the type `k8s`. `parents` are the names above pods where the kubelet has a cgroup of its own."""

    name = KIND

    def __init__(
        self, kubelet: Kubelet, clock: Clock, *, patience: timedelta = PATIENCE, parents: Collection[str] = ()
    ) -> None:
        self._kubelet, self._clock = kubelet, clock
        self._patience, self._parents = patience.total_seconds(), frozenset(parents)

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        """Look at `subject`. Raises CallerGone, CantSay, Unavailable."""
        located = locate(cgroups_of(subject.folder), parents=self._parents)
        if located is None:
            return frozenset()
        if located.pod is not None and "-" not in located.pod:
            raise CantSay("it is in a static pod, whose uid the cluster does not know")
        running, container = await self._find(located, subject)
        found = running.pod.selectors(container.name)
        if len(found) > MOST_SELECTORS:
            raise CantSay(f"its pod has so many labels that there are more than {MOST_SELECTORS} selectors")
        return found | {_OPEN} if running.open_to_host else found

    def strength(self, found: frozenset[Selector]) -> Strength | None:
        """A pod's, unless it lets its processes at others'."""
        return Strength.POD if found and _OPEN not in found else None

    async def _find(self, located: Located, subject: Subject) -> tuple[Running, Container]:
        try:
            return await self._asked(located, subject)
        except Unavailable:
            known = self._kubelet.known
            found = known.find(located) if self._clock.boot() - known.at < STALE else None
            if found is None:
                raise
            return found

    async def _asked(self, located: Located, subject: Subject) -> tuple[Running, Container]:
        """By an answer as new as it takes."""
        begun = self._clock.boot()
        snapshot = await self._kubelet.recent()
        while (found := snapshot.find(located)) is None:
            subject.folder.start_time()  # raises when there is nobody to wait for any more
            if self._clock.boot() - begun >= self._patience:
                raise Unavailable("the kubelet knows no pod with the container this process is in")
            snapshot = await self._kubelet.newer(snapshot.version)
        return found
