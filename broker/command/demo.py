"""sojourn demo: the promise, kept in front of one's eyes."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option("--database", metavar="HOST:PORT", help="A PostgreSQL of your own instead of the embedded one.")
@click.option("--user", default="postgres", show_default=True, help="Its superuser, with --database.")
@click.option("--password", "password", metavar="file:/path|env:NAME", help="Where its password is, with --database.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def demo(database: str | None, user: str, password: str | None, *, as_json: bool) -> None:
    """Show one task end to end on a real PostgreSQL; exit 1 if anything did not happen as promised.

    Example: sojourn demo --database 127.0.0.1:5432 --user postgres --password env:PGPASSWORD
    """
    from broker.demo.database import Server
    from broker.demo.story import tell
    from broker.demo.timeline import Timeline
    from ca.errors import Problem
    from ca.runtime import log, process
    from ca.runtime.clock import SystemClock
    from ca.runtime.secret import Reference

    log.setup("demo", level="error", stream=sys.stderr, json=False)
    clock = SystemClock()
    timeline = Timeline(clock, as_json=as_json)
    held: list[bool] = []

    own: Server | None = None
    if database is not None:
        host, _, port = database.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535 or password is None:
            raise click.UsageError("--database is HOST:PORT and needs --password")
        try:
            own = Server(host=host, port=int(port), user=user, password=Reference.parse(password).read())
        except Problem as problem:
            raise click.UsageError(f"--password: {problem}") from problem

    async def main() -> None:
        try:
            held.append(await tell(clock, timeline, own))
        except Problem as problem:
            timeline.fact("stopped", str(problem), holds=False)
            held.append(timeline.verdict())

    code = process.run(main)
    raise SystemExit(code or int(held != [True]))
