"""sojourn broker: the broker alone, on any SPIFFE Workload API."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), required=True, help="Its settings (config/broker.yaml)."
)
@click.option(
    "--restored", is_flag=True, help="Its store was put back from a copy: begin another incarnation, in quarantine."
)
@click.option("--verbose", is_flag=True, help="Log every request.")
def broker(path: Path, *, restored: bool, verbose: bool) -> None:
    """Run the broker alone: it needs nothing but a Workload API, ours or an existing SPIRE's.

    Example: sojourn broker --config /etc/sojourn/broker.yaml

    A restored store is noticed by itself nearly always (docs/decisions/0014); `--restored` says it for once, also of a
    snapshot that can't be told from the store it was taken of.
    """
    from functools import partial

    from attestor.command import alone
    from broker.serve import RunningBroker, serve
    from broker.settings import BrokerSettings

    def told(_: BrokerSettings, running: RunningBroker) -> str:
        host, port = running.address
        return f"the broker answers at https://{host}:{port}"

    alone.run("broker", path, BrokerSettings, partial(serve, restored=restored), told, verbose=verbose)
