"""The command `sojourn`: one table of subcommands, each loaded when it is used, so that `--help` stays fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a subcommand lives (`module:command`) and the sentence `--help` shows of it."""

    where: str
    help: str


COMMANDS: Mapping[str, Entry] = {
    "demo": Entry(
        "broker.command.demo:demo", "Show one task end to end on a real PostgreSQL, and prove that nothing is left."
    ),
    "up": Entry("broker.command.up:up", "Run everything on this machine in one process, durable."),
    "run": Entry("broker.command.run:run", "Run a command inside a task of its own, with its secrets."),
    "status": Entry("broker.command.status:status", "What runs, which tasks and leases live, what is overdue."),
    "doctor": Entry("broker.command.doctor:doctor", "Check this machine and its settings; each finding with its fix."),
    "task": Entry("broker.command.task:task", "Open, show and end tasks."),
    "secret": Entry(
        "broker.command.secret:secret", "List what may be asked for, ask for it, put values that rest here."
    ),
    "lease": Entry("broker.command.lease:lease", "List and revoke what was given."),
    "target": Entry("broker.command.target:target", "Add, list and check the systems secrets are made in."),
    "policy": Entry("broker.command.policy:policy", "Check, test and explain policies."),
    "audit": Entry("broker.command.audit:audit", "Read and verify the audit."),
    "operator": Entry("broker.command.operator:operator", "Bind a certificate to named verbs."),
    "svid": Entry(
        "attestor.command.svid:svid", "Fetch, watch or write this process's X.509-SVID; revoke what was given."
    ),
    "jwt": Entry("attestor.command.jwt:jwt", "Fetch or verify a JWT-SVID."),
    "rule": Entry("attestor.command.rule:rule", "List identity rules, explain who gets what and why."),
    "node": Entry("attestor.command.node:node", "List nodes, send them away, ban them; show what was refused."),
    "token": Entry("attestor.command.token:token", "Create a join token for a node."),
    "ca": Entry("attestor.command.ca:ca", "Show, rotate, taint and revoke the keys that sign identities."),
    "bundle": Entry(
        "attestor.command.bundle:bundle", "Show our trust domain's bundle; show, set and delete foreign ones."
    ),
    "config": Entry("broker.command.config:config", "Check a settings file."),
    "server": Entry("attestor.command.server:server", "Run the attestor server alone."),
    "node-agent": Entry("attestor.command.node_agent:node_agent", "Run the node agent alone."),
    "broker": Entry("broker.command.broker:broker", "Run the broker alone."),
}

SETTINGS: Mapping[str, str] = {
    "broker": "broker.settings:BrokerSettings",
    "attestor-server": "attestor.server.settings:ServerSettings",
    "node-agent": "attestor.node_agent.settings:NodeAgentSettings",
    "target": "broker.settings:TargetSettings",
}
"""Kind of settings file -> the model that reads it, for `sojourn config check`."""


def load(where: str) -> Any:
    """What `module:name` of one of the tables above leads to."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def settings_model(kind: str) -> type[Any]:
    """The model that reads settings of this kind."""
    model: type[Any] = load(SETTINGS[kind])
    return model


class Commands(click.Group):
    """The root: knows every subcommand by name and loads one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's shape
        """Every name, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's shape
        """The subcommand itself."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = load(entry.where)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's shape
        """Names and sentences from the table, without loading anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()], col_spacing=3)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="sojourn")
def root() -> None:
    """An agent gets an identity and its secrets for the length of its task, and no longer.

    Example: sojourn up &  then  sojourn run --role orders-db/readonly -- psql
    """


def main() -> None:
    """The entry point of the console script."""
    if not sys.platform.startswith("linux"):
        click.echo(
            "sojourn runs on Linux only: it attests processes through the kernel's SO_PEERCRED and pidfd", err=True
        )
        raise SystemExit(2)
    root()
