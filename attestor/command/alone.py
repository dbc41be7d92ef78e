"""One process from its settings file: `sojourn server` and `sojourn node-agent`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from ca.runtime import log, process
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.process import Readiness, until_stopped
from ca.runtime.settings import BadSettings, Settings, load
from ca.runtime.terminal import Console, exit_code

S = TypeVar("S", bound=Settings)
Serve = Callable[[S, Clock, Readiness], AbstractAsyncContextManager[Any]]


def run(
    name: str, path: Path, model: type[S], serve: Serve[S], told: Callable[[S, Any], str], *, verbose: bool
) -> NoReturn:
    """Load the settings at `path` and serve until a signal; ends this process.

    Settings are judged before anything is begun: each fault is one line on stderr, and the exit code is 2. Once it
    answers, `told(settings, served)` is printed.
    """
    log.setup(name, level="info" if verbose else "warning")
    try:
        settings = load(path, model)
    except BadSettings as error:
        Console().error(error)
        raise SystemExit(exit_code(error)) from None

    async def main() -> None:
        async with serve(settings, SystemClock(), Readiness()) as served:
            click.echo(told(settings, served))
            sys.stdout.flush()
            await until_stopped()

    raise SystemExit(process.run(main, tell=Console().error))
