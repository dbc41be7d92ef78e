"""Options several subcommands share: which broker, asked as whom; sensitivities as they are typed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

LEVELS = click.Choice(["public", "internal", "confidential", "restricted"])
"""The words for a sensitivity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What was said about which broker is meant; everything left out is found (`broker.client.address`)."""

    broker: str | None = None
    workload_api: str | None = None
    admin: Path | None = None
    state: Path | None = None


_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The state folder of the `sojourn up` meant (default: your own, or $SOJOURN_STATE).",
)
_BROKER = click.option(
    "--broker", metavar="URL", help="The broker (default: $SOJOURN_BROKER, then the running `sojourn up`)."
)
_WORKLOAD_API = click.option(
    "--socket",
    "workload_api",
    metavar="ADDRESS",
    help="The Workload API (default: $SPIFFE_ENDPOINT_SOCKET, then the running `sojourn up`).",
)
_ADMIN = click.option(
    "--socket",
    "admin",
    type=click.Path(path_type=Path),
    help="The operators' socket (default: $SOJOURN_BROKER_ADMIN, then the running `sojourn up`).",
)


def agent_options(function: Callable[..., Any]) -> Callable[..., None]:
    """`--broker`, `--socket` and `--state`, as `where`: for those who ask with an identity of their own."""

    @_BROKER
    @_WORKLOAD_API
    @_STATE
    @functools.wraps(function)
    def command(*args: Any, broker: str | None, workload_api: str | None, state: Path | None, **options: Any) -> None:
        function(*args, where=Where(broker=broker, workload_api=workload_api, state=state), **options)

    return command


def operator_options(function: Callable[..., Any]) -> Callable[..., None]:
    """`--socket` and `--state`, as `where`: for those who give orders on the operators' socket."""

    @_ADMIN
    @_STATE
    @functools.wraps(function)
    def command(*args: Any, admin: Path | None, state: Path | None, **options: Any) -> None:
        function(*args, where=Where(admin=admin, state=state), **options)

    return command
