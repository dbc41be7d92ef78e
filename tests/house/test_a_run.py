"""A run of tests that can't come to its end is ended, and says where it stood."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from house.tree import ROOT

HANGS_AFTER_A_FAILURE = """
import pytest, threading

@pytest.fixture
def held():
    yield
    threading.Event().wait()

def test_it(held):
    assert False, "tulip"
"""


HANGS = """
import asyncio

async def somebody():
    await asyncio.Event().wait()

async def test_it():
    await somebody()
"""


def ran(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """A run of one file, with a second for each test."""
    (folder / "test_hangs.py").write_text(text)
    options = ("faulthandler_timeout=1", "faulthandler_exit_on_timeout=true", "asyncio_mode=auto")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "test_hangs.py"]
    return subprocess.run(
        command + [word for option in options for word in ("-o", option)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_hangs_once_a_test_has_failed_is_ended(tmp_path: Path) -> None:
    """With the traceback of the place; otherwise a run would stand still until somebody kills it, and say nothing."""
    done = ran(tmp_path, HANGS_AFTER_A_FAILURE)
    assert done.returncode == 1
    assert "Timeout (0:00:01)!" in done.stderr
    assert "in held" in done.stderr
    assert "test_hangs.py::test_it had failed" in done.stderr
    assert "tulip" in done.stderr


def test_what_a_loop_waits_for_is_told(tmp_path: Path) -> None:
    """Down to the innermost, which no stack of a thread shows."""
    done = ran(tmp_path, HANGS)
    assert done.returncode == 1
    assert "test_hangs.py:8 test_it" in done.stderr
    assert "test_hangs.py:5 somebody" in done.stderr
