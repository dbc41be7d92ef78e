"""From a reference to the workload it means: found here and attested by us, whatever the asker believes of it.

A process is opened by its number and held by a descriptor, then attested as if it had called; it need not know of that.
A pod or a task is looked for among what is held: the node agent has attested a process of it before. Nothing that a
broker says beside the reference counts, and what we are ourselves is nobody's to ask for: not our own process, and no
identity below `/sojourn`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from attestor.errors import BadReference, NotEntitled, NotForBrokers, UnknownWorkload
from attestor.methods.workload.proc import CallerGone
from attestor.node_agent.held import Held
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.peer import Peer, peer_by_number
from attestor.node_agent.renewal import Renewal
from attestor.selector import Selector
from attestor.wire.attestation import Identity
from attestor.wire.spiffe_broker import PodReference, ProcessReference, Reference, TaskReference
from ca.errors import NotFound, Unavailable
from ca.spiffe.id import SpiffeId, TrustDomain

_OURS = "/sojourn/"
_TASKS = "/task/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one reference means: a process that is held, and which of its identities; `task` when that is a task's."""

    held: Held
    meant: Callable[[Identity], bool]
    task: bool = False

    @asynccontextmanager
    async def wanting_lists(self, lists: bool) -> AsyncIterator[None]:  # noqa: FBT001 - it goes by the call's header
        """Be told of new revocation lists while the block runs."""
        self.held.list_users += lists
        try:
            yield
        finally:
            self.held.list_users -= lists

    def view(self) -> Held:
        """It as the asker may see it.

        Raises:
            CallerGone: the process ended.
            UnknownWorkload: the task ended.
            NotForBrokers: nothing of it is meant, or nothing is left of it.
            Unavailable: its certificates have expired, and none is signed.
        """
        self.held.check()
        identities = tuple(one for one in self.held.identities if self.meant(one))
        if self.task and not identities:
            raise UnknownWorkload("the task has ended")
        if self.held.barred or not identities:
            raise NotForBrokers("the workload has no identity that is given to brokers")
        if not any(one.id in self.held.leaves for one in identities):
            raise Unavailable("the certificates of the workload have expired, and the attestor server signs none")
        return replace(self.held, identities=identities)


class References:
    """Looks for workloads among the processes of this machine."""

    def __init__(self, renewal: Renewal, holdings: Holdings, own: TrustDomain) -> None:
        self._renewal = renewal
        self._holdings = holdings
        self._own = own

    @asynccontextmanager
    async def workload(self, reference: Reference) -> AsyncIterator[Workload]:
        """The workload that `reference` means, for as long as the block runs; its identities are kept fresh meanwhile.

        What the block raises because the workload ended, or lost what it had, becomes an error of the reference.

        Raises:
            UnknownWorkload: there is none, or it has ended.
            NotForBrokers: it is there and has no identity, or none that is given away.
            BadReference: it means more than one.
        """
        with _told():
            peer, meant = self._find(reference)
            async with self._renewal.admitted(peer) as held:
                yield Workload(held=held, meant=meant, task=isinstance(reference, TaskReference))

    def _find(self, reference: Reference) -> tuple[Peer, Callable[[Identity], bool]]:
        if isinstance(reference, ProcessReference):
            return self._process(reference), _is_nobodys
        if isinstance(reference, PodReference):
            return self._again(self._pod(reference)), _is_nobodys
        task = SpiffeId(self._own, _TASKS + reference.task_id)
        return self._again(self._holder(reference, task)), lambda one: one.id == task

    @staticmethod
    def _process(reference: ProcessReference) -> Peer:
        if reference.pid == os.getpid():
            raise NotForBrokers("the node agent's own process is nobody's to ask for")
        return peer_by_number(reference.pid)

    def _pod(self, reference: PodReference) -> Held:
        """A process of the one instance of a pod: where a rule binds to the pod or container, of all its processes."""
        asked = {"pod-uid": reference.uid, "ns": reference.namespace, "pod-name": reference.name}
        wanted = {Selector("k8s", f"{name}:{value}") for name, value in asked.items() if value}
        found = [one for one in self._attested() if one.findings and wanted <= one.findings.selectors]
        instances = {one.instance for one in found}
        if len(instances) > 1:
            raise BadReference(f"{len(instances)} workloads of this pod are attested: refer to one of them by its pid")
        if not found:
            raise UnknownWorkload("no process of this pod has been attested on this node")
        return found[0]

    def _holder(self, reference: TaskReference, task: SpiffeId) -> Held:
        found = next((one for one in self._attested() if one.entitled(task)), None)
        if found is None:
            raise UnknownWorkload(f"nobody on this node holds the identity of the task `{reference.task_id}`")
        return found

    def _attested(self) -> Iterator[Held]:
        return (one for one in self._holdings if one.counter and not one.barred and one.is_alive())

    @staticmethod
    def _again(held: Held) -> Peer:
        """The very process that is held, and no other with its number."""
        peer = peer_by_number(held.name.pid)
        if peer.name != held.name:
            peer.close()
            raise UnknownWorkload("the workload has ended")
        return peer


def _is_nobodys(identity: Identity) -> bool:
    """Whether it is not one of our own parts'."""
    return not identity.id.path.startswith(_OURS)


@contextmanager
def _told() -> Iterator[None]:
    """In the words of the standard."""
    try:
        yield
    except CallerGone as error:
        raise UnknownWorkload("the workload has ended") from error
    except UnknownWorkload:
        raise
    except NotFound as error:
        raise UnknownWorkload(str(error)) from error
    except NotEntitled as error:
        raise NotForBrokers(
            "no identity rule of this node matches the workload, or its identity was withdrawn"
        ) from error
