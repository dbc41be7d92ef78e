"""What a reference leads to: a process by its number, the one attested process of a pod, whoever holds a task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib.const import Status

from attestor.methods.workload.protocol import Subject
from attestor.selector import Selector, parse_all
from attestor.wire.spiffe_broker import PodReference, ProcessReference, TaskReference
from fakes.broker_api import X509, Broker, broker_api, ends, heard, outcome, process
from fakes.issuer import identity

INVALID, NOT_FOUND, NOT_ENTITLED = "WORKLOAD_REFERENCE_INVALID", "WORKLOAD_NOT_FOUND", "WORKLOAD_NOT_ENTITLED"
UID = "2b5f1c5e-8f65-4cb8-9c2f-0d2d7a4a9a10"


class Pods:
    """A source that has been told which processes are in pods."""

    name = "k8s"

    def __init__(self) -> None:
        self.of: dict[int, frozenset[Selector]] = {}

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        """As the real one says them."""
        return self.of.get(subject.pid, frozenset())


@pytest.fixture
def pods() -> Pods:
    """None yet."""
    return Pods()


@pytest.fixture
async def broker(tmp_path: Path, pods: Pods) -> AsyncIterator[Broker]:
    """It listens."""
    async with broker_api(tmp_path, pods) as one:
        yield one


def pod(name: str = "cart-0", uid: str = UID) -> frozenset[Selector]:
    """What is found in a process of a pod."""
    return parse_all(["k8s:ns:shop", f"k8s:pod-name:{name}", f"k8s:pod-uid:{uid}", "k8s:sa:cart"])


@pytest.mark.clause("BR-11", "BR-14")
async def test_a_pod_by_key_by_uid_or_by_both(broker: Broker, pods: Pods) -> None:
    """Its process has been attested before; a key and a uid of two pods are of none, and so is another namespace."""
    with process() as one:
        pods.of[one.pid] = pod()
        asked = PodReference(namespace="shop", name="cart-0")
        assert await outcome(broker, X509, asked) == (Status.NOT_FOUND, NOT_FOUND)
        async with broker.call(X509, ProcessReference(one.pid)) as known:
            (whole,) = (await heard(known)).svids
            for known_as in (asked, PodReference(uid=UID), PodReference(namespace="shop", name="cart-0", uid=UID)):
                async with broker.call(X509, known_as, broker.caller("/pods")) as stream:
                    assert list((await heard(stream)).svids) == [whole]
            for wrong in (
                PodReference(namespace="shop", name="cart-0", uid="another"),
                PodReference(namespace="other", name="cart-0"),
                PodReference(namespace="shop", name="cart"),
            ):
                assert await outcome(broker, X509, wrong) == (Status.NOT_FOUND, NOT_FOUND)


@pytest.mark.clause("BR-17")
async def test_a_pod_with_two_workloads_is_no_reference(broker: Broker, pods: Pods) -> None:
    """One reference means one workload; nothing of two is mixed."""
    with process() as one, process() as two:
        pods.of |= {one.pid: pod(), two.pid: pod()}
        async with broker.call(X509, ProcessReference(one.pid)) as first:
            mine = (await heard(first)).svids
            async with broker.call(X509, ProcessReference(two.pid)) as second:
                assert mine[0].x509_svid != (await heard(second)).svids[0].x509_svid
                found = await outcome(broker, X509, PodReference(uid=UID))
                assert found == (Status.INVALID_ARGUMENT, INVALID)


@pytest.mark.clause("BR-22")
async def test_a_pods_stream_ends_with_its_process(broker: Broker, pods: Pods) -> None:
    """And a process that left the pod's description is not found by it any more."""
    with process() as one:
        pods.of[one.pid] = pod()
        async with broker.call(X509, ProcessReference(one.pid)) as known:
            await heard(known)
            async with broker.call(X509, PodReference(uid=UID)) as stream:
                await heard(stream)
                one.kill()
                assert await ends(stream) == (Status.NOT_FOUND, NOT_FOUND)


async def test_a_task_is_who_holds_its_identity(broker: Broker) -> None:
    """Only that identity of it; when the task ends, so does the stream, while the process goes on."""
    authority = broker.authority
    agent, task = identity(authority.id("/agent")), identity(authority.id("/task/t1"), "t1")
    broker.agent.issuer.given = lambda _: (agent, task)
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid)) as whole:
            assert len((await heard(whole)).svids) == 2
            async with broker.call(X509, TaskReference("t1")) as stream:
                (svid,) = (await heard(stream)).svids
                assert (svid.spiffe_id, svid.hint) == ("spiffe://example.org/task/t1", "t1")
                broker.agent.issuer.given, broker.agent.issuer.rules_version = (lambda _: (agent,)), "2"
                await broker.agent.tick()
                assert await ends(stream) == (Status.NOT_FOUND, NOT_FOUND)
            assert len((await heard(whole)).svids) == 1


async def test_identities_of_our_own_parts_are_never_given(broker: Broker) -> None:
    """Whoever holds one beside others shows the others only."""
    authority = broker.authority
    both = (identity(authority.id("/sojourn/broker")), identity(authority.id("/a")))
    broker.agent.issuer.given = lambda _: both
    with process() as one:
        async with broker.call(X509, ProcessReference(one.pid)) as stream:
            assert [svid.spiffe_id for svid in (await heard(stream)).svids] == ["spiffe://example.org/a"]
    broker.agent.issuer.given, broker.agent.issuer.rules_version = (lambda _: both[:1]), "2"
    with process() as one:
        assert await outcome(broker, X509, ProcessReference(one.pid)) == (Status.PERMISSION_DENIED, NOT_ENTITLED)
