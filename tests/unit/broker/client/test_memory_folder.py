"""Private files in memory: whole or not at all, and nothing left of who was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker.client.memory_folder import MemoryFolder
from ca.errors import Unavailable
from ca.runtime.secret import Secret

LEAVE = "from broker.client.memory_folder import MemoryFolder as M\nfrom ca.runtime.secret import Secret\n"
LEAVE += "import os\nf = M.make()\nf.write('x', Secret('tulip'))\nprint(f.path, flush=True)\nos.kill(os.getpid(), 9)\n"


def test_a_file_is_private_and_replaced_as_a_whole() -> None:
    """Who opened it before reads what it held then; nothing half-written stays."""
    folder = MemoryFolder.make()
    try:
        path = folder.write("x", Secret("tulip"))
        with path.open() as before:
            assert folder.write("x", Secret("rose")) == path
            assert before.read() == "tulip"
        assert path.read_text() == "rose"
        assert (path.stat().st_mode & 0o777, folder.path.stat().st_mode & 0o777) == (0o600, 0o700)
        assert list(folder.path.iterdir()) == [path]
    finally:
        folder.remove()
    assert not folder.path.exists()


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_lives_is_not() -> None:
    """The lock dies with its owner."""
    living = MemoryFolder.make()
    left = Path(
        subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, check=False).stdout.strip()
    )
    assert (left / "x").read_text() == "tulip"
    MemoryFolder.make().remove()
    assert not left.exists()
    assert living.path.exists()
    living.remove()


def test_a_disk_is_not_written_to() -> None:
    """Where nothing is in memory it is refused, with what to do instead."""
    disk = Path(__file__).parent
    with pytest.raises(Unavailable, match="--fd"):
        MemoryFolder.make(environment={"XDG_RUNTIME_DIR": "/proc"}, shared=disk)
    made = MemoryFolder.make(environment={"XDG_RUNTIME_DIR": "/dev/shm"}, shared=disk)
    assert made.path.parent == Path("/dev/shm")
    made.remove()
