"""The SPIFFE Broker API: its methods by name, references as values, and its errors (SPIFFE_Broker_API.md).

That standard's "broker" is a process that asks for the identities of *other* processes: a proxy for all pods of a
machine, say. It is not the secrets broker of this project.

A reference is packed into an Any, so that a vendor may add kinds of its own; ours names a task. What a client says of a
workload beside the reference is believed in nothing: the one who answers looks for himself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError, Message

from attestor._proto import spiffe_broker_pb2 as pb
from attestor._proto import status_pb2, task_reference_pb2
from attestor.errors import BadReference, NotForBrokers, UnknownWorkload
from ca.errors import Problem

SERVICE = "spiffe.broker.API"
SUBSCRIBE_X509_SVID = f"/{SERVICE}/SubscribeToX509SVID"  # server stream
SUBSCRIBE_X509_BUNDLES = f"/{SERVICE}/SubscribeToX509Bundles"  # server stream
FETCH_JWT_SVID = f"/{SERVICE}/FetchJWTSVID"  # unary
SUBSCRIBE_JWT_BUNDLES = f"/{SERVICE}/SubscribeToJWTBundles"  # server stream

SECURITY_HEADER = ("broker.spiffe.io", "true")
"""On every request; without it the answer is InvalidArgument."""

PID_TYPE = "type.googleapis.com/spiffe.broker.WorkloadPIDReference"
OBJECT_TYPE = "type.googleapis.com/spiffe.broker.KubernetesObjectReference"
TASK_TYPE = "type.googleapis.com/sojourn.spiffe_broker.v1.SojournTaskReference"

ERROR_DOMAIN = "spiffe.io"
ERROR_INFO_TYPE = "type.googleapis.com/google.rpc.ErrorInfo"
REASONS: Mapping[type[Problem], tuple[int, str]] = {
    BadReference: (3, "WORKLOAD_REFERENCE_INVALID"),
    UnknownWorkload: (5, "WORKLOAD_NOT_FOUND"),
    NotForBrokers: (7, "WORKLOAD_NOT_ENTITLED"),
}
"""The gRPC code and the reason of each error the standard names."""

_TASK_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_UID = re.compile(r"[0-9A-Za-z-]{1,64}")
_LONGEST_REFERENCE = 4096


@dataclass(frozen=True, slots=True)
class ProcessReference:
    """The process that has this number on the machine of the one who answers."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReference:
    """A pod by namespace and name, by uid, or by both, which must then agree."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class TaskReference:
    """Whoever holds the identity of this task."""

    task_id: str


Reference: TypeAlias = ProcessReference | PodReference | TaskReference
M = TypeVar("M", bound=Message)


def decode_reference(message: pb.WorkloadReference) -> Reference:
    """For a server. Raises BadReference: none, an unknown kind, or one that can mean no workload."""
    packed = message.reference
    if not packed.type_url or len(packed.value) > _LONGEST_REFERENCE:
        raise BadReference("a request needs exactly one reference to a workload")
    if packed.type_url == PID_TYPE:
        return _process(_unpacked(packed, pb.WorkloadPIDReference))
    if packed.type_url == OBJECT_TYPE:
        return _pod(_unpacked(packed, pb.KubernetesObjectReference))
    if packed.type_url == TASK_TYPE:
        return _task(_unpacked(packed, task_reference_pb2.SojournTaskReference))
    raise BadReference(
        f"references of this type are not known here: expected `{PID_TYPE}`, `{OBJECT_TYPE}` or `{TASK_TYPE}`"
    )


def encode_reference(reference: Reference) -> pb.WorkloadReference:
    """For a client."""
    if isinstance(reference, ProcessReference):
        return _packed(PID_TYPE, pb.WorkloadPIDReference(pid=reference.pid))
    if isinstance(reference, TaskReference):
        return _packed(TASK_TYPE, task_reference_pb2.SojournTaskReference(task_id=reference.task_id))
    found = pb.KubernetesObjectReference(type=pb.KubernetesObjectType(plural="pods", group="core"), uid=reference.uid)
    if reference.name:
        found.key.namespace, found.key.name = reference.namespace, reference.name
    return _packed(OBJECT_TYPE, found)


def under_its_name(message: Message, kind: type[M]) -> M:
    """An answer of the Workload API as that of the Broker API: field by field the same, under another name."""
    return kind.FromString(message.SerializeToString())


def error_details(problem: Problem) -> bytes | None:
    """What `grpc-status-details-bin` says of `problem`: the standard's reason, where it has one."""
    found = next((REASONS[kind] for kind in type(problem).__mro__ if kind in REASONS), None)
    if found is None:
        return None
    code, reason = found
    info = status_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN)
    detail = Packed(type_url=ERROR_INFO_TYPE, value=info.SerializeToString())
    return status_pb2.Status(code=code, message=str(problem), details=[detail]).SerializeToString()


def decode_error_details(data: bytes) -> tuple[str, str] | None:
    """For a client: domain and reason of the ErrorInfo in it, None when there is none."""
    for detail in status_pb2.Status.FromString(data).details:
        if detail.type_url == ERROR_INFO_TYPE:
            info = status_pb2.ErrorInfo.FromString(detail.value)
            return info.domain, info.reason
    return None


def _process(message: pb.WorkloadPIDReference) -> ProcessReference:
    if message.pid <= 0:
        raise BadReference("the pid of a reference must be positive")
    return ProcessReference(message.pid)


def _pod(message: pb.KubernetesObjectReference) -> PodReference:
    if (message.type.plural, message.type.group) != ("pods", "core"):
        raise BadReference("only pods can be referred to: expected the type `pods` of the group `core`")
    key = message.key
    if not message.uid and not message.HasField("key"):
        raise BadReference("a reference to a pod needs its key or its uid")
    if message.HasField("key") and not (_NAME.fullmatch(key.namespace) and _NAME.fullmatch(key.name)):
        raise BadReference("the key of a pod has a namespace and a name")
    if message.uid and not _UID.fullmatch(message.uid):
        raise BadReference("the uid of a pod has letters, digits and dashes")
    return PodReference(namespace=key.namespace, name=key.name, uid=message.uid)


def _task(message: task_reference_pb2.SojournTaskReference) -> TaskReference:
    if not _TASK_ID.fullmatch(message.task_id) or not message.task_id.strip("."):
        raise BadReference("the id of a task has letters, digits, dots, dashes and underscores")
    return TaskReference(message.task_id)


def _packed(type_url: str, message: Message) -> pb.WorkloadReference:
    return pb.WorkloadReference(reference=Packed(type_url=type_url, value=message.SerializeToString()))


def _unpacked(packed: Packed, kind: type[M]) -> M:
    try:
        return kind.FromString(packed.value)
    except DecodeError as error:
        raise BadReference("a reference is not of the type it says") from error
