"""The run of everything, in parts of which three run at once: tests mostly wait, for servers and their own processes.

    python -m house.parts [ARGUMENT …]      further arguments go to every part

The longest part starts first. What no part names is in the last one, so no folder can be forgotten. What a part says
is heard when it is over, whatever its end; red if one is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from house.tree import ROOT

PARTS = (
    ("journeys",),
    ("faults",),
    ("unit/broker",),
    ("unit/attestor", "unit/ca"),
    ("attacks", "contracts"),
)
AT_ONCE = 3  # two keep two cores half busy


def parts() -> Iterator[Sequence[Path]]:
    """Every folder of tests, in exactly one list."""
    named = [ROOT / "tests" / folder for part in PARTS for folder in part]
    for part in PARTS:
        yield [ROOT / "tests" / folder for folder in part]
    files = (ROOT / "tests").rglob("test_*.py")
    yield sorted({_top(file) for file in files if not any(file.is_relative_to(folder) for folder in named)})


def _top(file: Path) -> Path:
    """The folder below `tests` that a file is in: `tests/unit/new` for what is in no part of `unit`."""
    names = file.relative_to(ROOT / "tests").parts
    return ROOT.joinpath("tests", *names[: 2 if names[0] == "unit" else 1])


async def main(*arguments: str) -> int:
    """Run all; the worst of their exit codes."""
    turn = asyncio.Semaphore(AT_ONCE)
    running: set[int] = set()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _end, running)
    codes = await asyncio.gather(*(_run(part, arguments, turn, running) for part in parts()))
    return max(map(abs, codes))


async def _run(part: Sequence[Path], arguments: Sequence[str], turn: asyncio.Semaphore, running: set[int]) -> int:
    name = " ".join(str(folder.relative_to(ROOT)) for folder in part)
    async with turn:
        print(f"started: {name}", flush=True)
        with tempfile.TemporaryFile("w+") as heard:
            command = [sys.executable, "-m", "pytest", *map(str, part), *arguments]
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=heard, stderr=heard)
            running.add(process.pid)
            code = await process.wait()
            running.discard(process.pid)
            heard.seek(0)
            print(f"{heard.read()}\nended with {code}: {name}", flush=True)
    return code


def _end(running: set[int]) -> None:
    for pid in running:
        os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
