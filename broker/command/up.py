"""sojourn up: everything on this machine in one process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ca.spiffe.id import TrustDomain


@click.command()
@click.option("--state", type=click.Path(path_type=Path), help="The state folder (default: your own).")
@click.option("--trust-domain", help="The trust domain; remembered by the state folder.", metavar="NAME")
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, help="Where agents reach the broker.", metavar="HOST:PORT"
)
@click.option("--key", help="The key-encryption key: file:/path or env:NAME. Without it keys stay in memory.")
@click.option(
    "--uid", "uids", type=int, multiple=True, help="Give processes of this uid an identity too (first start)."
)
@click.option("--verbose", is_flag=True, help="Log every request.")
def up(
    state: Path | None, trust_domain: str | None, listen: str, key: str | None, uids: tuple[int, ...], *, verbose: bool
) -> None:
    """Run attestor server, node agent and broker in one process, durable.

    Ctrl-C ends every task and waits until access is gone. State survives; the next start goes on from it.

    Example: sojourn up --key file:/root/sojourn.key
    """
    from ca.runtime import log, process
    from ca.runtime.terminal import Console

    log.setup("up", level="info" if verbose else "warning", stream=sys.stderr, json=not sys.stderr.isatty())

    async def main() -> None:
        await _run(state, trust_domain, listen, key, uids)

    raise SystemExit(process.run(main, tell=Console().error))


async def _run(
    state: Path | None, trust_domain: str | None, listen: str, key: str | None, uids: tuple[int, ...]
) -> None:
    from broker.up import Wish
    from broker.up import up as everything
    from ca.runtime.clock import SystemClock
    from ca.runtime.places import Places, runtime_home, state_home
    from ca.runtime.process import Readiness, until_stopped
    from ca.runtime.secret import Reference

    places = Places.of(state) if state is not None else Places.of(state_home(), runtime_home())
    host, port = _address(listen)
    wish = Wish(
        trust_domain=_trust_domain(places.state, trust_domain),
        host=host,
        port=port,
        key=Reference.parse(key) if key is not None else None,
        hold=uids,
    )
    if places.running.exists():
        _refuse_twice(places.running)
    async with everything(places, wish, SystemClock(), Readiness()) as running:
        (places.state / "trust-domain").write_text(f"{wish.trust_domain}\n")
        click.echo(f"sojourn is up (pid {os.getpid()})")
        click.echo(f"  trust domain   {wish.trust_domain}")
        click.echo(f"  agents reach   {running.address}")
        click.echo(f"  Workload API   {running.workload_api}")
        click.echo(f"  state          {places.state}")
        for warning in running.warnings:
            click.echo(f"  note: {warning}")
        click.echo("Next: sojourn target add …, then sojourn run --role TARGET/ROLE -- CMD. Ctrl-C ends every task.")
        await until_stopped()
        click.echo("ending every task …")
    click.echo("nothing is left")


def _refuse_twice(running: Path) -> None:
    """Say who is up already. A file that a kill -9 left behind names a socket nobody answers at. Raises Conflict.

    The number in it proves nothing: after a restart of the machine it may be another process's.
    """
    import json
    import socket

    from ca.errors import Conflict

    try:
        said = json.loads(running.read_text())
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(said["admin"]["broker"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    raise Conflict(f"sojourn is already up with this state: pid {said['pid']}, {said['broker']}", pid=said["pid"])


def _address(text: str) -> tuple[str, int]:
    from ca.errors import Malformed

    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Malformed(f"`{text[:60]}` is not an address, expected HOST:PORT")
    return host, int(port)


def _trust_domain(state: Path, wanted: str | None) -> TrustDomain:
    """The one this state folder was made with; a store signed for one name is never served under another."""
    from ca.errors import Conflict
    from ca.spiffe.id import TrustDomain

    kept = state / "trust-domain"
    known = kept.read_text().strip() if kept.exists() else None
    if known is not None and wanted not in {None, known}:
        raise Conflict(f"the state in `{state}` belongs to the trust domain `{known}`, choose another --state")
    return TrustDomain.parse(known or wanted or "sojourn.internal")
