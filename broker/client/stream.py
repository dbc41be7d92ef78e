"""Server-sent events as a broker writes them: bytes into messages, under a limit, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from broker.client.answers import read
from broker.model.ids import LeaseId, TaskId
from broker.wire.body import LeaseName, Stamp, TaskName, Told
from broker.wire.events import EventLine
from ca.errors import Malformed

LARGEST = 16 * 1024 * 1024
"""Bytes of one message; a snapshot of everything that lives is the largest."""

BEAT, RESYNC, END = "beat", "resync", "end"


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `id` is a cursor to go on from."""

    id: str | None
    event: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A new beginning: what lives at `epoch`, tasks with their versions. Whatever isn't here is over."""

    epoch: str
    tasks: Mapping[TaskId, int]
    leases: frozenset[LeaseId]


class _TaskThere(Told):
    id: TaskName
    version: int


class _SnapshotTold(Told):
    epoch: Stamp
    tasks: Annotated[list[_TaskThere], Field(default_factory=list)]
    leases: Annotated[list[LeaseName], Field(default_factory=list)]


def told(message: Message) -> EventLine | Snapshot:
    """What a message says that is neither a beat nor the end. Raises Malformed."""
    content = message.data.encode()
    if message.event != RESYNC:
        return read(content, EventLine)
    found = read(content, _SnapshotTold)
    return Snapshot(
        epoch=found.epoch,
        tasks={one.id: one.version for one in found.tasks},
        leases=frozenset(found.leases),
    )


@dataclass(slots=True)
class Reader:
    """Messages out of the pieces in which a stream arrives."""

    _rest: bytearray = field(default_factory=bytearray)
    _id: str | None = None
    _event: str = ""
    _data: list[str] = field(default_factory=list)
    _size: int = 0

    def feed(self, content: bytes) -> Iterator[Message]:
        """Every message that is whole now. Raises Malformed: one is too long, or not text."""
        self._rest += content
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            yield from self._line(line)
        if self._size + len(self._rest) > LARGEST:
            raise Malformed(f"the broker sent a message of more than {LARGEST} bytes")

    def _line(self, line: bytes) -> Iterator[Message]:
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise Malformed("the broker sent a message that is not text") from error
        if not text:
            if self._event:
                yield Message(self._id, self._event, "\n".join(self._data))
            self._id, self._event, self._data, self._size = None, "", [], 0
            return
        name, _, value = text.partition(":")
        self._take(name, value.removeprefix(" "))

    def _take(self, name: str, value: str) -> None:
        self._size += len(value)
        if name == "id":
            self._id = value
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
