"""sojourn svid: this process's X.509-SVIDs, as any workload gets them; and an operator's word that takes some back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attestor.command.options import endpoint_options
from attestor.command.svid_direct import direct
from attestor.command.svid_revoke import revoke
from ca.runtime.terminal import Console, Style, Styled, command_options

if TYPE_CHECKING:
    from datetime import datetime

    from ca.errors import Problem
    from ca.spiffe.x509svid import X509Svid


@click.group()
def svid() -> None:
    """Fetch, watch or write this process's X.509-SVID; revoke what was given.

    The process is this command itself, as the kernel shows it to the node agent: its user decides what it gets.
    """


svid.add_command(revoke)
svid.add_command(direct)


@svid.command()
@click.option("--hint", help="Only the identity with this hint.")
@endpoint_options
@command_options
async def fetch(console: Console, hint: str | None, address: str | None, state: Path | None) -> None:
    """Fetch once and show what was given, never a key.

    Example: sojourn svid fetch --json
    """
    from attestor.client.errors import NoIdentity
    from attestor.command.running import asking_workload_api, workload_api
    from ca.runtime.clock import SystemClock
    from ca.runtime.terminal import when

    async with asking_workload_api(workload_api(address, state)) as api:
        found = [one for one in (await api.fetch_x509()).svids if hint is None or one.hint == hint]
    if not found:
        raise NoIdentity(f"this process has no identity with the hint `{hint}`")
    if console.json:
        console.result([_facts(one) for one in found])
        return
    now = SystemClock().now()
    console.table(
        ("SPIFFE ID", "hint", "expires", "instance", "serial"),
        [(str(one.id), one.hint, when(one.not_after, now), one.instance, _serial(one)) for one in found],
    )


@svid.command()
@endpoint_options
@command_options
async def watch(console: Console, address: str | None, state: Path | None) -> None:
    """Print a line for each identity, and one each time it is rotated or withdrawn; until Ctrl-C.

    While the Workload API can't be reached it waits for it.

    Example: sojourn svid watch
    """
    from attestor.client.source import X509Source
    from attestor.command.running import workload_api
    from ca.runtime.clock import SystemClock

    clock, shown = SystemClock(), set[str]()
    async with X509Source.open(workload_api(address, state), clock, waiting=_Waiting(console)) as source:
        async for _ in source.changed():
            fresh = [one for one in source.svids if _serial(one) not in shown]
            shown = {_serial(one) for one in source.svids}
            for one in fresh:
                _show(console, one, clock.now())
            if not source.svids:
                console.result({"withdrawn": True}, Styled("withdrawn", Style.BAD), "  this process has no identity")


@svid.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Write once and end.")
@click.option("--signal", "pids", type=int, multiple=True, metavar="PID", help="Send SIGHUP there after each change.")
@endpoint_options
@command_options
async def write(
    console: Console, folder: Path, pids: Sequence[int], address: str | None, state: Path | None, *, once: bool
) -> None:
    """Keep svid.pem, key.pem and bundle.pem in FOLDER/current fresh, for programs that know nothing but files.

    All three change at once, by one link. When the identity is withdrawn the files are removed. Where the rule says
    `bind: process`, what was written is revoked when this command ends: then leave out --once.

    Example: sojourn svid write /run/nginx/svid --signal "$(cat /run/nginx.pid)"
    """
    from attestor.client.files import keep_files
    from attestor.client.source import X509Source
    from attestor.command.running import workload_api

    where = workload_api(address, state)
    if once:
        console.result({"folder": str(written := await _write_once(where, folder))}, str(written))
        return
    watched = _Signalled.of(pids)
    try:
        async with X509Source.open(where, waiting=_Waiting(console)) as source:
            await keep_files(source, folder, told=lambda new: _written(console, new, watched))
    finally:
        watched.close()


async def _write_once(where: str, folder: Path) -> Path:
    from attestor.client.files import SvidFiles
    from attestor.command.running import asking_workload_api
    from ca.errors import Malformed

    async with asking_workload_api(where) as api:
        context = await api.fetch_x509()
    given = context.svids[0]
    bundle = context.bundles.get(given.id.trust_domain)
    if bundle is None:
        raise Malformed(f"the Workload API gave no bundle for `{given.id.trust_domain}`")
    return SvidFiles(folder).write(given, bundle)


def _written(console: Console, folder: Path, watched: _Signalled) -> None:
    console.result({"folder": str(folder)}, "written  ", str(folder))
    watched.hang_up()


class _Signalled:
    """Processes held by the kernel, so that a pid that was used again is never hit."""

    def __init__(self, held: dict[int, int]) -> None:
        self._held = held

    @classmethod
    def of(cls, pids: Sequence[int]) -> _Signalled:
        """Hold each. Raises NotFound."""
        from ca.errors import NotFound

        found = cls({})
        for pid in pids:
            try:
                found._held[pid] = os.pidfd_open(pid)
            except (OSError, OverflowError) as error:
                found.close()
                raise NotFound(f"there is no process `{pid}` to signal") from error
        return found

    def hang_up(self) -> None:
        """SIGHUP to each. Raises NotFound when one has ended."""
        import signal

        from ca.errors import Denied, NotFound

        for pid, descriptor in self._held.items():
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGHUP)
            except ProcessLookupError as error:
                raise NotFound(f"the process {pid} that was to be told of new files has ended") from error
            except PermissionError as error:
                raise Denied(f"the process {pid} belongs to somebody else and can't be signalled") from error

    def close(self) -> None:
        """Let them go."""
        while self._held:
            os.close(self._held.popitem()[1])


class _Waiting:
    """Says on stderr what is waited for, each reason once in a row."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = ""

    def __call__(self, problem: Problem) -> None:
        if str(problem) != self._said:
            self._said = str(problem)
            self._console.error(problem)


def _show(console: Console, one: X509Svid, now: datetime) -> None:
    from ca.runtime.terminal import when

    words = f"  serial {_serial(one)}, expires {when(one.not_after, now)}, instance {one.instance or '-'}"
    console.result(_facts(one), Styled(str(one.id), Style.GOOD), words)


def _facts(one: X509Svid) -> dict[str, Any]:
    return {
        "spiffe_id": str(one.id),
        "hint": one.hint,
        "serial": _serial(one),
        "issuer": _issuer(one),
        "instance": one.instance,
        "not_before": one.not_before.isoformat(),
        "expires_at": one.not_after.isoformat(),
    }


def _serial(one: X509Svid) -> str:
    return f"{one.chain[0].serial_number:x}"


def _issuer(one: X509Svid) -> str:
    """The key id of the authority that signed it, as `sojourn svid revoke --issuer` wants it."""
    from ca.spiffe import leaf

    return (leaf.read(one.chain[0]).authority_key_id or b"").hex()
