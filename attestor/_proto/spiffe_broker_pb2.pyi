from google.protobuf import any_pb2 as _any_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkloadReference(_message.Message):
    __slots__ = ("reference",)
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    reference: _any_pb2.Any
    def __init__(self, reference: _Optional[_Union[_any_pb2.Any, _Mapping]] = ...) -> None: ...

class WorkloadPIDReference(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: _Optional[int] = ...) -> None: ...

class KubernetesObjectType(_message.Message):
    __slots__ = ("plural", "group")
    PLURAL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    plural: str
    group: str
    def __init__(self, plural: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class KubernetesObjectKey(_message.Message):
    __slots__ = ("namespace", "name")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class KubernetesObjectReference(_message.Message):
    __slots__ = ("type", "key", "uid")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    type: KubernetesObjectType
    key: KubernetesObjectKey
    uid: str
    def __init__(self, type: _Optional[_Union[KubernetesObjectType, _Mapping]] = ..., key: _Optional[_Union[KubernetesObjectKey, _Mapping]] = ..., uid: _Optional[str] = ...) -> None: ...

class SojournTaskReference(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("reference",)
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    reference: WorkloadReference
    def __init__(self, reference: _Optional[_Union[WorkloadReference, _Mapping]] = ...) -> None: ...

class FetchJWTSVIDRequest(_message.Message):
    __slots__ = ("reference", "audience", "spiffe_id")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    reference: WorkloadReference
    audience: _containers.RepeatedScalarFieldContainer[str]
    spiffe_id: str
    def __init__(self, reference: _Optional[_Union[WorkloadReference, _Mapping]] = ..., audience: _Optional[_Iterable[str]] = ..., spiffe_id: _Optional[str] = ...) -> None: ...
