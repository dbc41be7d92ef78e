"""Broker ⇄ server: which instances opened a task, and what became of them (traps 3, 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attestor._proto import task_pb2 as pb
from attestor.instance import State, Strength, parse_id
from ca.errors import Malformed

SERVICE = "sojourn.task.v1.Tasks"
BIND = f"/{SERVICE}/Bind"  # unary
WATCH = f"/{SERVICE}/Watch"  # server stream

BROKER_PATH = "/sojourn/broker"
MOST_WATCHED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What the server answers when an instance opens a task; `strength` is None for an unknown one."""

    state: State
    strength: Strength | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChange:
    """An instance ended, is not observed, or is live again."""

    instance: str
    state: State
    reason: str
    cursor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of those asked for that are not simply live, as of `cursor`."""

    cursor: int
    changes: tuple[InstanceChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Nothing changed, and both sides are still there."""

    cursor: int


Watched = Snapshot | InstanceChange | Beat


def encode_bind(instance: str) -> pb.BindRequest:
    """For a broker."""
    return pb.BindRequest(instance=instance)


def decode_bind(message: pb.BindRequest) -> str:
    """For a server. Raises Malformed."""
    return parse_id(message.instance)


def encode_bound(bound: Bound) -> pb.BindResponse:
    """For a server."""
    return pb.BindResponse(state=bound.state, strength=bound.strength or "")


def decode_bound(message: pb.BindResponse) -> Bound:
    """For a broker. Raises Malformed."""
    strength = Strength.parse(message.strength) if message.strength else None
    return Bound(state=State.parse(message.state), strength=strength)


def encode_watch(instances: Iterable[str]) -> pb.WatchRequest:
    """For a broker."""
    return pb.WatchRequest(instances=sorted(instances))


def decode_watch(message: pb.WatchRequest) -> frozenset[str]:
    """For a server. Raises Malformed."""
    if len(message.instances) > MOST_WATCHED:
        raise Malformed(f"not more than {MOST_WATCHED} instances can be watched at once")
    return frozenset(parse_id(one) for one in message.instances)


def encode_watched(step: Watched) -> pb.WatchResponse:
    """For a server."""
    match step:
        case Snapshot():
            changes = [_change(one) for one in step.changes]
            return pb.WatchResponse(snapshot=pb.Snapshot(cursor=step.cursor, changes=changes))
        case InstanceChange():
            return pb.WatchResponse(change=_change(step))
        case Beat():
            return pb.WatchResponse(beat=pb.Beat(cursor=step.cursor))


def decode_watched(message: pb.WatchResponse) -> Watched:
    """For a broker. Raises Malformed."""
    match message.WhichOneof("step"):
        case "snapshot":
            changes = tuple(_read(one) for one in message.snapshot.changes)
            return Snapshot(cursor=message.snapshot.cursor, changes=changes)
        case "change":
            return _read(message.change)
        case "beat":
            return Beat(cursor=message.beat.cursor)
        case _:
            raise Malformed("the attestor server sent a message of the task stream that has no meaning here")


def _change(change: InstanceChange) -> pb.InstanceChange:
    return pb.InstanceChange(instance=change.instance, state=change.state, reason=change.reason, cursor=change.cursor)


def _read(message: pb.InstanceChange) -> InstanceChange:
    return InstanceChange(
        instance=parse_id(message.instance),
        state=State.parse(message.state),
        reason=message.reason,
        cursor=message.cursor,
    )
