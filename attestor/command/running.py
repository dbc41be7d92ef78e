"""Where the `sojourn up` of this machine listens, for commands that ask one of its parts.

`up` says so in a file inside a folder only its own user may enter (`Places.running`). It is believed when it belongs to
this user or to root and nobody else may write it: whoever could write it would choose from whom this command takes an
identity, or to whom it gives an order.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestor.client.admin import AdminClient
from attestor.client.errors import NoIdentity, Unreachable
from attestor.client.workload_api import SOCKET_VARIABLE, WorkloadApiClient
from ca.errors import Denied, Malformed, Problem
from ca.runtime.places import Places, runtime_home, state_home
from ca.runtime.terminal import Console

STATE_VARIABLE = "SOJOURN_STATE"
START = "start it with: sojourn up"
"""What to do when nothing runs."""

_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a running `up` says of its identity side."""

    workload_api: str
    server_admin: Path
    node_agent_admin: Path


def running(state: Path | None = None, environment: Mapping[str, str] = os.environ) -> Running:
    """The `up` with the state folder `state`, or SOJOURN_STATE, or this user's own.

    Raises:
        Unreachable: none runs.
        Denied: somebody else may have written what is there.
        Malformed: it is not what `up` writes.
    """
    path = _places(state, environment).running
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unreachable(f"nothing runs here (there is no `{path}`), {START}") from error
    except OSError as error:
        raise Denied(f"can't read `{path}`: {(error.strerror or 'unknown reason').lower()}") from error
    with os.fdopen(descriptor, "rb") as file:
        _check_owner(path, os.fstat(descriptor))
        content = file.read(_LARGEST)
    try:
        return _read(json.loads(content))
    except (ValueError, TypeError, KeyError) as error:
        raise Malformed(f"`{path}` is not what `sojourn up` writes: remove it and start that anew") from error


def workload_api(said: str | None, state: Path | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """The address of the Workload API: what was said, else the environment's, else that of the running `up`."""
    address = said or environment.get(SOCKET_VARIABLE) or running(state, environment).workload_api
    return f"unix://{address}" if address.startswith("/") else address


@asynccontextmanager
async def asking_admin(socket: Path) -> AsyncIterator[AdminClient]:
    """The operators' socket at `socket`; when nobody answers the error says what to do."""
    try:
        async with AdminClient(socket) as client:
            yield client
    except Unreachable as error:
        raise Unreachable(f"nothing answers at `{socket}`, {START}") from error


@asynccontextmanager
async def asking_workload_api(address: str) -> AsyncIterator[WorkloadApiClient]:
    """The Workload API at `address`; errors say what to do."""
    try:
        async with WorkloadApiClient(address) as api:
            yield api
    except Unreachable as error:
        raise Unreachable(f"no Workload API answers at `{address}`, {START}") from error
    except NoIdentity as error:
        raise NoIdentity(
            f"{error}; `sojourn rule explain --pid PID` says what was seen and why no rule matched"
        ) from error


def _places(state: Path | None, environment: Mapping[str, str]) -> Places:
    named = state or (Path(environment[STATE_VARIABLE]) if environment.get(STATE_VARIABLE) else None)
    return Places.of(state_home(environment), runtime_home(environment)) if named is None else Places.of(named)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid()} or stat.S_IMODE(found.st_mode) & 0o022:
        raise Denied(f"`{path}` may have been written by somebody else, so it is not believed")


def _read(value: Any) -> Running:
    admin = value["admin"]
    return Running(
        workload_api=_text(value["workload_api"]),
        server_admin=Path(_text(admin["server"])),
        node_agent_admin=Path(_text(admin["node_agent"])),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text")
    return value


class Waiting:
    """Says on stderr what is waited for, each reason once in a row."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""

    def __call__(self, problem: Problem) -> None:
        """It waits for this."""
        if str(problem) != self._said:
            self._said = str(problem)
            self._console.error(problem)
