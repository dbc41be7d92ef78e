"""A changed file or a signal wakes whoever must read again.

    async with watch_file(settings.rules, clock, rules.reload):
        ...

The file is looked at each second: its identity, size and time of change, so both an editor's rename and Kubernetes'
swapped link are seen, and no kernel facility has to work on the file system it lies on. SIGHUP means: read again now,
whatever it looks like. Enter the block before reading for the first time, and no change is missed. What `on_change`
does with a bad file is its own matter; a `Problem` it raises is logged and the old contents stay in force, anything
else ends the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path

from ca.errors import Problem
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.process import Wake, background

INTERVAL = 1.0
"""Seconds between two looks."""

OnChange = Callable[[], Awaitable[None] | None]
Mark = tuple[tuple[str, int, int, int, int], ...]

_log = log.get(__name__)
_listeners: list[Callable[[], None]] = []


@asynccontextmanager
async def watch_file(path: Path, clock: Clock, on_change: OnChange) -> AsyncIterator[None]:
    """Call `on_change` whenever the file at `path` looks different, or SIGHUP came, while the block runs.

    When `path` is a folder its files are looked at, those in folders below it too.
    """
    watcher = _Watcher(path, on_change)
    with on_hangup(watcher.hung_up):
        async with background(f"watch {path.name}", watcher.tick, every=INTERVAL, clock=clock, wake=watcher.hangup):
            yield


class _Watcher:
    def __init__(self, path: Path, on_change: OnChange) -> None:
        self.hangup = Wake()
        self._asked = False
        self._path = path
        self._on_change = on_change
        self._seen = marks(path)

    def hung_up(self) -> None:
        self._asked = True
        self.hangup.set()

    async def tick(self, _: datetime) -> None:
        found = marks(self._path)
        if found == self._seen and not self._asked:
            return
        self._seen, self._asked = found, False
        try:
            answer = self._on_change()
            if answer is not None:
                await answer
        except Problem as problem:
            _log.warning("the new contents are refused, the old ones stay in force", path=self._path, error=problem)


def marks(path: Path) -> Mark:
    """What the file at `path`, or every file below the folder, looks like; something missing looks like nothing."""
    return tuple(mark for found in _files(path) if (mark := _mark(found)) is not None)


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    return [Path(folder) / name for folder, _, names in sorted(os.walk(path)) for name in sorted(names)]


def _mark(path: Path) -> tuple[str, int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """Call `call` on the event loop for each SIGHUP while the block runs; several may listen.

    Only the main thread hears signals; a loop elsewhere sees changes by looking alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    _listeners.append(call)
    loop.add_signal_handler(signal.SIGHUP, _hung_up)
    try:
        yield
    finally:
        _listeners.remove(call)
        if not _listeners:
            loop.remove_signal_handler(signal.SIGHUP)


def _hung_up() -> None:
    _log.info("reading again", reason="SIGHUP")
    for call in tuple(_listeners):
        call()
