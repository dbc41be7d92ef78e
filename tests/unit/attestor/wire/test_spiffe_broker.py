"""References and errors of the SPIFFE Broker API: there and back, and whatever else arrives."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as Packed
from hypothesis import given
from hypothesis import strategies as st

from attestor._proto import spiffe_broker_pb2 as pb
from attestor.errors import BadReference, NotForBrokers, UnknownWorkload
from attestor.wire import spiffe_broker as wire
from attestor.wire.spiffe_broker import PodReference, ProcessReference, Reference, TaskReference
from ca.errors import Denied, Problem, Unavailable

TYPES = [wire.PID_TYPE, wire.OBJECT_TYPE, wire.TASK_TYPE]


@pytest.mark.parametrize(
    "reference",
    [
        ProcessReference(1),
        ProcessReference(2**31 - 1),
        PodReference(namespace="shop", name="cart-0"),
        PodReference(uid="2b5f1c5e-8f65"),
        PodReference(namespace="shop", name="cart-0", uid="2b5f1c5e-8f65"),
        TaskReference("0192f3a4-task"),
    ],
)
def test_there_and_back(reference: Reference) -> None:
    """Each kind."""
    assert wire.decode_reference(wire.encode_reference(reference)) == reference


@given(type_url=st.sampled_from(TYPES), value=st.binary(max_size=200))
def test_any_bytes_are_a_reference_or_refused(type_url: str, value: bytes) -> None:
    """Nothing else is raised, and what is read means something."""
    message = pb.WorkloadReference(reference=Packed(type_url=type_url, value=value))
    try:
        found = wire.decode_reference(message)
    except BadReference:
        return
    assert found == wire.decode_reference(wire.encode_reference(found))


@given(st.text(max_size=40))
def test_a_task_id_is_one_segment(task_id: str) -> None:
    """Whatever is read as one stays inside `/task/`."""
    try:
        found = wire.decode_reference(wire.encode_reference(TaskReference(task_id)))
    except (BadReference, UnicodeEncodeError):
        return
    assert isinstance(found, TaskReference)
    assert "/" not in found.task_id
    assert set(found.task_id) != {"."}


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (BadReference("a"), "WORKLOAD_REFERENCE_INVALID"),
        (UnknownWorkload("b"), "WORKLOAD_NOT_FOUND"),
        (NotForBrokers("c"), "WORKLOAD_NOT_ENTITLED"),
    ],
)
def test_an_error_says_its_reason(problem: Problem, reason: str) -> None:
    """In google.rpc.ErrorInfo, with the standard's domain."""
    told = wire.error_details(problem)
    assert told is not None
    assert wire.decode_error_details(told) == ("spiffe.io", reason)


def test_other_errors_have_no_reason_of_the_standard() -> None:
    """They are not about the workload."""
    assert [wire.error_details(one) for one in (Denied("a"), Unavailable("b"))] == [None, None]
