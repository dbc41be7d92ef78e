"""sojourn config: judge a settings file without starting what it is for."""

from __future__ import annotations

from pathlib import Path

import click

from broker.command import SETTINGS, settings_model
from ca.runtime.terminal import Console, command_options


@click.group()
def config() -> None:
    """Check a settings file."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(list(SETTINGS)), help="What it is for (default: by the file's name).")
@command_options
def check(console: Console, file: Path, kind: str | None) -> None:
    """Read a file as the process would, and tell every fault with its line, its key and what was expected.

    Exit code 2 when there is one. Rules are checked by the attestor server that loads them, policies by `policy check`.

    Example: sojourn config check /etc/sojourn/broker.yaml
    """
    from ca.runtime.settings import load

    chosen = kind or _kind_of(file)
    load(file, settings_model(chosen))
    console.result({"file": str(file), "kind": chosen, "well": True}, f"{file}: a {chosen} can start with it")


def _kind_of(file: Path) -> str:
    """The kind a file's name says. Raises UsageError when it says none."""
    if file.parent.name == "targets":
        return "target"
    found = [kind for kind in SETTINGS if kind in file.stem.replace("_", "-")]
    if len(found) != 1:
        raise click.UsageError(f"can't tell from its name what `{file.name}` is for: say --kind")
    return found[0]
