"""The test's side of `parent.py`: start lives, wait for what becomes of them; never for time to pass.

A guard of a minute ends a life that hangs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults.case import Case
from servers.standing import die_with_parent

_GUARD = 60.0
_WARM = 60
"""Lives of one parent: about one kill in twenty meets a broker that was started cold."""

LIVES: list[dict[str, Any]] = []
"""Every life of this run: its story, what was armed, what fired in it, and how it ended."""


class Nursery:
    """A warm parent of brokers; one life at a time. `preloaded`: its environment beyond ours."""

    def __init__(self, preloaded: Mapping[str, str] | None = None) -> None:
        self.pid, self._preloaded = 0, dict(preloaded or {})
        self._case: Case | None = None
        self._fired_before = 0
        self._start()

    def _start(self) -> None:
        self._lives = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from faults.parent import serve_cases; serve_cases()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **self._preloaded, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of prctl
        )

    def begin(self, case: Case) -> int:
        """Start a life; its pid."""
        self._case, self._fired_before = case, len(fired(case))
        self._lives += 1
        self._write(json.dumps(asdict(case)))
        self.pid = int(self._read()["pid"])
        return self.pid

    def ended(self) -> int:
        """Wait for its end; the exit status, negative when a signal ended it."""
        return self._entered(self._read())

    def _entered(self, said: Any) -> int:
        assert "status" in said, said
        assert self._case is not None
        facts = {"story": self._case.story, "points": self._case.points, "cold": self._lives == 1}
        LIVES.append({**facts, "fired": fired(self._case)[self._fired_before :], "status": said["status"]})
        return int(said["status"])

    def run(self, case: Case) -> int:
        """A whole life."""
        self.begin(case)
        return self.ended()

    def until_stopped(self) -> None:
        """Wait until the life stopped itself, or was stopped."""
        said = self._read()
        assert said == {"stopped": True}, said
        assert state_of(self.pid) == "T"

    def stops_or_ends(self) -> int | None:
        """Wait until it stopped, or ended; the exit status when it ended."""
        said = self._read()
        return None if said == {"stopped": True} else self._entered(said)

    def kill_within(self, seconds: float) -> int:
        """Let it live for so long at most, then kill it; the exit status, of whatever ended it."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self._kill()
        return self.ended()

    def stops_or_dies_within(self, seconds: float) -> int | None:
        """As `stops_or_ends`, and it is killed when neither comes in so long."""
        assert self._process.stdout is not None
        if select.select([self._process.stdout], [], [], seconds)[0]:
            return self.stops_or_ends()
        self._kill()
        said = self._read()
        return self._entered(self._read() if said == {"stopped": True} else said)  # it stopped at that very moment

    def _kill(self) -> None:
        """End it, unless it just ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send the life a signal."""
        os.kill(self.pid, number)

    def forget(self) -> None:
        """Close the sessions agents left open; now and then, let the next life be the first of a new parent."""
        self._write("")
        self._read()
        if self._lives >= _WARM:
            self.renew()

    def renew(self) -> None:
        """Let the next life be the first of a new parent."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the parent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(_GUARD)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def _read(self) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _GUARD)[0]:
            self._kill()
            raise AssertionError("a life hung, and was ended")
        return json.loads(self._process.stdout.readline())


def state_of(pid: int) -> str:
    """`R`, `S`, `T` for stopped, `Z` …; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def fired(case: Case) -> list[str]:
    """The points that fired in every life on this folder so far."""
    return case.marker.read_text().split() if case.marker.exists() else []


def why(case: Case) -> str:
    """What a life wrote when it broke off."""
    return case.failure.read_text() if case.failure.exists() else "it left no word"
