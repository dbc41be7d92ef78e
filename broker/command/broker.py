"""sojourn broker: the broker alone, on any SPIFFE Workload API."""

from __future__ import annotations

import sys
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
    from ca.runtime import log, process

    log.setup("broker", level="info" if verbose else "warning", stream=sys.stderr, json=True)

    async def main() -> None:
        from broker.serve import serve
        from broker.settings import BrokerSettings
        from ca.runtime.clock import SystemClock
        from ca.runtime.process import Readiness, until_stopped
        from ca.runtime.settings import load

        async with serve(load(path, BrokerSettings), SystemClock(), Readiness()) as running:
            host, port = running.address
            click.echo(f"the broker answers at https://{host}:{port}")
            await until_stopped()

    raise SystemExit(process.run(main))
