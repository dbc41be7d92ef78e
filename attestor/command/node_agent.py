"""sojourn node-agent: the node agent alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from attestor.node_agent.settings import NodeAgentSettings


@click.command("node-agent")
@click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="Its settings (config/node-agent.yaml)."
)
@click.option("--verbose", is_flag=True, help="Log every event, not only what went wrong.")
def node_agent(path: Path, *, verbose: bool) -> None:
    """Run the node agent alone: it attests this machine's processes and serves the Workload API.

    It starts without its server too, and says Unavailable until that has spoken. After a restart it goes on holding
    the processes that live, and reports those that ended meanwhile.

    Example: sojourn node-agent --config /etc/sojourn/node-agent.yaml
    """
    from attestor.command.alone import run
    from attestor.node_agent.serve import serve
    from attestor.node_agent.settings import NodeAgentSettings

    run("node-agent", path, NodeAgentSettings, serve, _told, verbose=verbose)


def _told(settings: NodeAgentSettings, _: Any) -> str:
    return (
        f"the node agent of `{settings.trust_domain}` serves the Workload API at unix://{settings.workload_socket}\n"
        f"  operators' socket  {settings.admin_socket}"
    )
