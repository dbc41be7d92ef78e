"""What a run that hangs says, and that it ends.

pytest ends a run in which a test takes longer than `faulthandler_timeout`, with the stacks of its threads. Two things
it leaves open: of a loop's tasks such a stack tells nothing; and once a test has failed it watches no longer, though a
loop is closed only when its threads are done, and one of them may wait for what the failed test did not do.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

_SOONER = 0.9
"""The part of the time after which tasks are told, before the run is ended."""


class Watch:
    """A plugin of pytest; it writes to the run's own stderr."""

    def __init__(self, config: pytest.Config) -> None:
        self._seconds = float(config.getini("faulthandler_timeout") or 0)
        with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            self._errors = os.dup(2)
        self._failed = ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Tell where the tasks stand, before pytest ends the run."""
        self._failed = ""
        timer = threading.Timer(self._seconds * _SOONER, self._tell)
        timer.daemon = True
        if self._seconds > 0:
            timer.start()
        try:
            return (yield)
        finally:
            timer.cancel()

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(
        self, node: pytest.Item | pytest.Collector, report: pytest.TestReport | pytest.CollectReport
    ) -> None:
        """Watch on, until pytest ends its watch of this test; a run that is ended tells nothing more of it."""
        if isinstance(node, pytest.Item) and self._seconds > 0:
            self._failed = f"{node.nodeid} had failed:\n{report.longreprtext}\n"
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._errors)

    def pytest_unconfigure(self) -> None:
        """Nothing is left to be watched."""
        os.close(self._errors)

    def _tell(self) -> None:
        tasks = [one for one in gc.get_objects() if issubclass(type(one), asyncio.Task) and not one.done()]
        lines = [line for task in tasks for line in (f"\ntask {task.get_name()}:", *_where(task.get_coro()))]
        os.write(self._errors, "\n".join([self._failed, *lines, ""]).encode(errors="replace"))


def _where(waiting: Any) -> Iterator[str]:
    """Each coroutine that waits for the next, outermost first."""
    while waiting is not None:
        kind = next((kind for kind in ("cr", "ag", "gi") if hasattr(waiting, f"{kind}_frame")), None)
        if kind is None:
            yield f"  {waiting!r:.200}"
            return
        frame = getattr(waiting, f"{kind}_frame")
        if frame is not None:
            yield f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
