from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BindRequest(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    def __init__(self, instance: _Optional[str] = ...) -> None: ...

class BindResponse(_message.Message):
    __slots__ = ("state", "strength")
    STATE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    state: str
    strength: str
    def __init__(self, state: _Optional[str] = ..., strength: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("instances",)
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instances: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("snapshot", "change", "beat")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    change: InstanceChange
    beat: Beat
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., change: _Optional[_Union[InstanceChange, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("cursor", "changes")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    changes: _containers.RepeatedCompositeFieldContainer[InstanceChange]
    def __init__(self, cursor: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[InstanceChange, _Mapping]]] = ...) -> None: ...

class InstanceChange(_message.Message):
    __slots__ = ("instance", "state", "reason", "cursor")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    instance: str
    state: str
    reason: str
    cursor: int
    def __init__(self, instance: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., cursor: _Optional[int] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    def __init__(self, cursor: _Optional[int] = ...) -> None: ...
