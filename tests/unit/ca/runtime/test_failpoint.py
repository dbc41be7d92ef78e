"""Fail-points: inert unless armed, precise when they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ca.errors import Malformed
from ca.runtime import failpoint

GUARD = 60.0


@pytest.fixture(autouse=True)
def _inert() -> Iterator[None]:
    failpoint.disarm()
    yield
    failpoint.disarm()


def run(points: str, marker: Path, times: int = 5) -> subprocess.Popen[str]:
    """A process that reaches `a.b` a few times and says so."""
    code = f"""
from ca.runtime import failpoint
failpoint.arm_from_environment()
for time in range({times}):
    failpoint.reach("other.point")
    failpoint.reach("a.b")
    print(time, flush=True)
"""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, failpoint.POINTS: points, failpoint.MARKER: str(marker)},
    )


def test_a_point_that_is_not_armed_does_nothing() -> None:
    """Reaching it is free of effect."""
    failpoint.reach("a.b")
    assert failpoint.fired() == []


@pytest.mark.parametrize(("points", "before"), [("a.b=kill", []), ("a.b=kill@3", ["0", "1"])])
def test_kill_ends_the_process_there_and_leaves_the_name(tmp_path: Path, points: str, before: list[str]) -> None:
    """By SIGKILL, at the n-th time, with the name on disk."""
    with run(points, tmp_path / "marker") as process:
        out, _ = process.communicate(timeout=GUARD)
    assert process.returncode == -signal.SIGKILL
    assert out.split() == before
    assert (tmp_path / "marker").read_text() == "a.b\n"


def test_stop_halts_the_process_until_it_is_continued(tmp_path: Path) -> None:
    """SIGSTOP once; after SIGCONT it goes on as if nothing had been."""
    with run("a.b=stop@2", tmp_path / "marker") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert (tmp_path / "marker").read_text() == "a.b\n"
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=GUARD)
    assert process.returncode == 0
    assert out.split() == ["0", "1", "2", "3", "4"]


def test_mark_only_leaves_its_name(tmp_path: Path) -> None:
    """Several points, each once, in the order reached."""
    failpoint.arm("a.b=mark, c-d.e_f.g=mark@2", marker=tmp_path / "marker")
    for name in ("c-d.e_f.g", "a.b", "a.b", "c-d.e_f.g", "x"):
        failpoint.reach(name)
    assert failpoint.fired() == ["a.b", "c-d.e_f.g"]
    assert (tmp_path / "marker").read_text() == "a.b\nc-d.e_f.g\n"


@pytest.mark.parametrize(
    "points",
    ["a.b", "a.b=", "=kill", "a.b=explode", "a.b=kill@0", "a.b=kill@x", "a b=kill", "a.b=kill,a.b=stop", "a..b=kill"],
)
def test_what_is_not_understood_is_refused(points: str) -> None:
    """And what was armed before stays as it was."""
    failpoint.arm("x.y=mark")
    with pytest.raises(Malformed):
        failpoint.arm(points)
    failpoint.reach("x.y")
    assert failpoint.fired() == ["x.y"]


def test_a_test_in_the_same_process_may_put_its_own_act_there() -> None:
    """For the length of a block."""
    seen = list[str]()
    with failpoint.armed("a.b", lambda: seen.append("acted"), time=2):
        for _ in range(3):
            failpoint.reach("a.b")
    failpoint.reach("a.b")
    assert seen == ["acted"]
