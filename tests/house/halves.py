"""The run of everything: two halves at once, because tests mostly wait, for servers and for processes of their own.

    python -m house.halves [ARGUMENT …]     further arguments go to both

What is not named here is in the second half, so no folder can be forgotten. The first half is heard as it runs, the
second when the first is over. Red if either is.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from house.tree import ROOT

FIRST = ("attacks", "chart", "conformance", "contracts", "faults")


def halves() -> tuple[Sequence[Path], Sequence[Path]]:
    """Every folder of tests, in one of two lists."""
    folders = [folder for folder in sorted((ROOT / "tests").iterdir()) if any(folder.rglob("test_*.py"))]
    first = [folder for folder in folders if folder.name in FIRST]
    return first, [folder for folder in folders if folder not in first]


def main(*arguments: str) -> int:
    """Run both; the worse of their exit codes."""
    first, second = halves()
    with tempfile.TemporaryFile("w+") as waiting:
        running = [_started(first, arguments, None), _started(second, arguments, waiting)]

        def end(number: int, _: FrameType | None) -> None:
            for process in running:
                process.send_signal(number)

        signal.signal(signal.SIGTERM, end)
        try:
            codes = [process.wait() for process in running]
        except KeyboardInterrupt:
            codes = [process.wait() for process in running]
        waiting.seek(0)
        sys.stdout.write(waiting.read())
    return max(map(abs, codes))


def _started(folders: Sequence[Path], arguments: Sequence[str], heard: IO[str] | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *map(str, folders), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=heard, stderr=heard and subprocess.STDOUT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
