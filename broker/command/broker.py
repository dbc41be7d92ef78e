"""sojourn broker: the broker alone, on any SPIFFE Workload API."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="Its settings (config/broker.yaml)."
)
@click.option("--verbose", is_flag=True, help="Log every request.")
def broker(path: Path, *, verbose: bool) -> None:
    """Run the broker alone: it needs nothing but a Workload API, ours or an existing SPIRE's.

    Example: sojourn broker --config /etc/sojourn/broker.yaml
    """
    from attestor.command import alone
    from broker.serve import RunningBroker, serve
    from broker.settings import BrokerSettings

    def told(_: BrokerSettings, running: RunningBroker) -> str:
        host, port = running.address
        return f"the broker answers at https://{host}:{port}"

    alone.run("broker", path, BrokerSettings, serve, told, verbose=verbose)
