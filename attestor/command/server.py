"""sojourn server: the attestor server alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from attestor.server.serve import Server
    from attestor.server.settings import ServerSettings


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    help="Its settings (config/attestor-server.yaml).",
)
@click.option("--verbose", is_flag=True, help="Log every event, not only what went wrong.")
def server(path: Path, *, verbose: bool) -> None:
    """Run the attestor server alone: it admits nodes, evaluates identity rules and has the CA sign.

    Rule files are read again when they change; a file with a fault never replaces a good one.

    Example: sojourn server --config /etc/sojourn/attestor-server.yaml
    """
    from attestor.command.alone import run
    from attestor.server.serve import serve
    from attestor.server.settings import ServerSettings

    run("attestor-server", path, ServerSettings, serve, _told, verbose=verbose)


def _told(settings: ServerSettings, served: Server) -> str:
    host, port = served.address
    lines = [
        f"the attestor server of `{settings.trust_domain}` answers node agents at {host}:{port}",
        f"  operators' socket  {settings.admin_socket}",
        f"  root's public key  {served.root_key_hash}",
        *(f"  note: {warning}" for warning in served.warnings),
    ]
    return "\n".join(lines)
