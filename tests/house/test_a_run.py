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


def test_what_hangs_once_a_test_has_failed_is_ended(tmp_path: Path) -> None:
    """With the traceback of the place; otherwise a run would stand still until somebody kills it, and say nothing."""
    (tmp_path / "test_hangs.py").write_text(HANGS_AFTER_A_FAILURE)
    command = (sys.executable, "-m", "pytest", "-p", "conftest", "-o", "faulthandler_timeout=1", "test_hangs.py")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    done = subprocess.run(
        [*command, "-o", "faulthandler_exit_on_timeout=true"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Timeout (0:00:01)!" in done.stderr
    assert "test_hangs.py" in done.stderr
    assert "in held" in done.stderr
