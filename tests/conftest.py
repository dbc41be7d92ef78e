"""What every test run must be able to say of itself: nothing was skipped, and everything that was collected ran.

The last line of a run counts. With `CI=true` the run ends red when a test was skipped, expected to fail, deselected or
never ran, and when a file of a folder that was named gave none: there is no way to hide a test.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from house.watch import Watch
from servers.postgres import one_test

ROOT = Path(__file__).parent.parent


class Count:
    """What became of the tests of this run."""

    def __init__(self) -> None:
        self.collected: set[str] = set()
        self.ran: set[str] = set()
        self.skipped: set[str] = set()
        self.expected_to_fail: set[str] = set()
        self.deselected: set[str] = set()
        self.empty_files: list[str] = []

    @property
    def sentence(self) -> str:
        """The numbers."""
        return (
            f"collected {len(self.collected)}, ran {len(self.ran)}, skipped {len(self.skipped)}, "
            f"xfailed {len(self.expected_to_fail)}, deselected {len(self.deselected)}"
        )

    @property
    def hidden(self) -> list[str]:
        """Everything that was not run as it stands there."""
        return sorted(
            self.skipped
            | self.expected_to_fail
            | self.deselected
            | (self.collected - self.ran)
            | {f"{file}: no test in it was collected" for file in self.empty_files}
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Before `-k` and `-m` take anything away."""
        self.collected = {item.nodeid for item in items}
        with_tests = {item.path for item in items}
        folders = [folder for argument in config.args if (folder := config.invocation_params.dir / argument).is_dir()]
        files = sorted({file for folder in folders for file in folder.resolve().rglob("test_*.py")})
        self.empty_files = [str(file.relative_to(ROOT)) for file in files if file not in with_tests]

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Taken away."""
        self.deselected |= {item.nodeid for item in items}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A whole file may skip itself."""
        if report.skipped:
            self.skipped.add(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test ended."""
        if hasattr(report, "wasxfail"):
            self.expected_to_fail.add(report.nodeid)
        elif report.skipped:
            self.skipped.add(report.nodeid)
        elif report.when == "call" or report.failed:
            self.ran.add(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Red, if something was hidden."""
        listing_only = session.config.getoption("collectonly")
        if self.hidden and os.environ.get("CI") == "true" and not listing_only:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The last words."""
        terminalreporter.write_line(self.sentence)
        if os.environ.get("CI") == "true":
            for name in self.hidden:
                terminalreporter.write_line(f"hidden: {name}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Count, watch, and let nothing of the outer world name another broker or socket, or make children deaf to ^C."""
    config.pluginmanager.register(Count(), "count")
    config.pluginmanager.register(Watch(config), "watch")
    for name in [name for name in os.environ if name.startswith(("SOJOURN_", "SPIFFE_"))]:
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _databases() -> Iterator[None]:
    """A database takes eight megabytes: no test leaves one behind."""
    with one_test():
        yield
