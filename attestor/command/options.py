"""Options several subcommands share, and how lengths of time are typed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_state = click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The state folder of the `sojourn up` meant (default: your own, or $SOJOURN_STATE).",
)
_endpoint = click.option(
    "--socket",
    "address",
    metavar="ADDRESS",
    help="The Workload API (default: $SPIFFE_ENDPOINT_SOCKET, then the running `sojourn up`).",
)
_admin = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="The operators' socket (default: that of the running `sojourn up`).",
)


def endpoint_options(function: F) -> F:
    """`--socket` and `--state`, for those who ask the Workload API: `address` and `state`."""
    return _endpoint(_state(function))


def admin_options(function: F) -> F:
    """`--socket` and `--state`, for those who ask an operators' socket: `socket` and `state`."""
    return _admin(_state(function))


class Length(click.ParamType[timedelta]):
    """A length of time with its unit: `90s`, `10m`, `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it, or say what was expected."""
        from pydantic import TypeAdapter, ValidationError

        from ca.runtime.settings import Duration

        try:
            found: timedelta = TypeAdapter(Duration).validate_python(value)
        except ValidationError:
            self.fail("expected a length of time with its unit, as in 90s, 10m or 1h30m", param, ctx)
        return found
