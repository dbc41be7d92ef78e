"""The run of everything, in parts of which three run at once: tests mostly wait, for servers and their own processes.

    python -m house.parts [ARGUMENT …]      further arguments go to every part

The longest part starts first. What no part names is in the last one, so no folder can be forgotten. What a part says
is heard when it is over, whatever its end; red if one is. What tests write is in memory where there is room for it, as
the data of their servers is; of a part that is red it stays.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from house.tree import ROOT
from servers.standing import Place, die_with_parent

PARTS = (
    ("journeys",),
    ("faults",),
    ("unit/broker",),
    ("unit/attestor", "unit/ca"),
    ("attacks", "contracts"),
)
AT_ONCE = 3  # two keep two cores half busy
_KEPT = 6


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


@dataclass(slots=True)
class Run:
    """What runs, and whether anything more is to begin."""

    arguments: Sequence[str]
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    running: set[int] = field(default_factory=set)
    over: bool = False

    def end(self) -> None:
        """Let what runs tear down, and begin nothing more."""
        self.over = True
        for pid in self.running:
            os.kill(pid, signal.SIGTERM)

    async def part(self, part: Sequence[Path]) -> int:
        """Run one and tell it; 0 only if it says itself that everything in it ran."""
        name = " ".join(str(folder.relative_to(ROOT)) for folder in part)
        async with self.turn:
            if self.over:
                return signal.SIGTERM
            print(f"started: {name}", flush=True)
            folder = Place.folder("sj-t-")
            with tempfile.TemporaryFile("w+", errors="replace") as heard:
                code = await self._heard(part, folder, heard)
                heard.seek(0)
                said = heard.read()
            code = code or int(_EVERYTHING.search(said) is None)
            print(f"{said}\nended with {code}: {name}", flush=True)
            if code:
                print(f"what its tests wrote: {_kept(folder)}", flush=True)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return code

    async def _heard(self, part: Sequence[Path], folder: Path, heard: IO[str]) -> int:
        command = [sys.executable, "-m", "pytest", f"--basetemp={folder}", *map(str, part), *self.arguments]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=heard, stderr=heard, preexec_fn=die_with_parent
        )
        self.running.add(process.pid)
        try:
            return await process.wait()
        except asyncio.CancelledError:  # ^C, which it heard as well: what it has to say is said
            self.over = True
            return await process.wait() or signal.SIGINT
        finally:
            self.running.discard(process.pid)


def _kept(folder: Path) -> Path:
    """Where a folder is from now on, under a name that the next run does not sweep; the newest few are."""
    kept = folder.rename(folder.with_name(f"sj-red-{folder.name.rpartition('-')[2]}"))
    for older in sorted(folder.parent.glob("sj-red-*"), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(older, ignore_errors=True)
    return kept


_EVERYTHING = re.compile(r"^collected (?P<all>\d+), ran (?P=all), ", re.MULTILINE)


async def main(*arguments: str) -> int:
    """Run all; the worst of their exit codes."""
    run = Run(arguments)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.end)
    return max(map(abs, await asyncio.gather(*map(run.part, parts()))))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
