"""Named points where a test may kill or stop this process; inert unless armed when the process starts.

    failpoint.reach("obtain.create.before")

    SOJOURN_FAILPOINTS="obtain.create.after=kill"            SIGKILL to itself, the first time
    SOJOURN_FAILPOINTS="obtain.intend.after=kill@3"          the third time
    SOJOURN_FAILPOINTS="renew.commit.before=stop"            SIGSTOP to itself; the test sends SIGCONT
    SOJOURN_FAILPOINTS="a.b=mark,c.d=kill@2"                 several; `mark` only leaves its name
    SOJOURN_FAILPOINT_MARKER=/tmp/fired                      its name is appended, and is on disk before it acts

A kill counts in the fault suite only when the marker names the point: the process died where it was meant to. Each
armed point acts once. An inert point costs one look into an empty dict. Whoever can set this process's environment
could kill it anyway; armed points are logged as a warning all the same.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ca.errors import Malformed
from ca.runtime import log

POINTS = "SOJOURN_FAILPOINTS"
MARKER = "SOJOURN_FAILPOINT_MARKER"

_WRITTEN = re.compile(r"(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)=(?P<action>[a-z]+)(?:@(?P<time>[1-9][0-9]{0,5}))?")
_log = log.get(__name__)


@dataclass(slots=True)
class _Point:
    act: Callable[[], None]
    remaining: int


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _nothing() -> None:
    """The name in the marker file is all that is wanted."""


ACTIONS: Mapping[str, Callable[[], None]] = {"kill": _kill, "stop": _stop, "mark": _nothing}

_armed: dict[str, _Point] = {}
_fired: list[str] = []
_marker: Path | None = None
_lock = threading.Lock()  # the store's thread reaches points too


def reach(name: str) -> None:
    """Say that this process is at the point `name`."""
    point = _armed.get(name)
    if point is not None:
        _fire(name, point)


def arm_from_environment() -> None:
    """Arm what the environment names; called once, when the process starts. Raises Malformed."""
    marker = os.environ.get(MARKER)
    arm(os.environ.get(POINTS, ""), marker=Path(marker) if marker else None)


def arm(points: str, *, marker: Path | None = None) -> None:
    """Arm the points written in `points`, and no others.

    Raises:
        Malformed: not `name=action` or `name=action@n`, an unknown action, or a name given twice.
    """
    global _marker  # noqa: PLW0603 - a process is armed once
    found = _read(points)
    disarm()
    _marker = marker
    _armed.update(found)
    if found:
        _log.warning("fail-points are armed", points=sorted(found))


def disarm() -> None:
    """Make every point inert again and forget what fired."""
    global _marker  # noqa: PLW0603
    _marker = None
    _armed.clear()
    _fired.clear()


@contextmanager
def armed(name: str, act: Callable[[], None], *, time: int = 1) -> Iterator[None]:
    """For a test in the same process: call `act` the `time`-th time the point `name` is reached inside the block."""
    _armed[name] = _Point(act, time)
    try:
        yield
    finally:
        _armed.pop(name, None)


def fired() -> list[str]:
    """The points that acted in this process, in order."""
    return list(_fired)


def _read(points: str) -> dict[str, _Point]:
    found: dict[str, _Point] = {}
    for written in filter(None, (part.strip() for part in points.split(","))):
        match = _WRITTEN.fullmatch(written)
        if match is None or match["action"] not in ACTIONS:
            known = "`, `".join(ACTIONS)
            raise Malformed(
                f"not a fail-point: `{written[:80]}`, expected `name=action` or `name=action@n` with `{known}`"
            )
        if match["name"] in found:
            raise Malformed(f"the fail-point `{match['name']}` is armed twice")
        found[match["name"]] = _Point(ACTIONS[match["action"]], int(match["time"] or 1))
    return found


def _fire(name: str, point: _Point) -> None:
    with _lock:
        point.remaining -= 1
        if point.remaining != 0:
            return
        _fired.append(name)
        if _marker is not None:
            _leave_name(_marker, name)
    point.act()


def _leave_name(marker: Path, name: str) -> None:
    descriptor = os.open(marker, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{name}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
