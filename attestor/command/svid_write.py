"""sojourn svid write: an SVID in files, and whoever reads them is told of each change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attestor.command.options import endpoint_options
from ca.runtime.terminal import Console, command_options

if TYPE_CHECKING:
    from attestor.client.files import Modes
    from attestor.client.keeping import Wanted, Written
    from attestor.client.reload import Listener

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_TAKEN = re.compile(r"(svid|key|combined|crl|bundles?)(\.|$)")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("command", nargs=-1)
@click.option("--once", is_flag=True, help="Write once, tell once and end.")
@click.option("--hint", help="The identity with this hint (default: the first).")
@click.option(
    "--jwt", "tokens", multiple=True, metavar="FILE=AUDIENCE", help="A token too; several audiences by commas."
)
@click.option("--federated", is_flag=True, help="bundle.DOMAIN.pem for each trust domain, and bundles.pem with all.")
@click.option("--revocation-lists", is_flag=True, help="crl.pem with what the authorities have taken back.")
@click.option("--mode", default="0600", show_default=True, help="Of certificates and bundles, up to 0644.")
@click.option("--key-mode", default="0600", show_default=True, help="Of keys and tokens, up to 0640.")
@click.option("--group", metavar="NAME", help="Give the files to this group.")
@click.option("--pid", "pids", type=int, multiple=True, help="Signal this process; the command ends when it has ended.")
@click.option(
    "--pid-file", "pid_files", type=click.Path(path_type=Path), multiple=True, help="Signal whom it names then."
)
@click.option("--signal", "signal_name", default="SIGHUP", show_default=True, help="What --pid and --pid-file send.")
@endpoint_options
@command_options
async def write(
    *,
    console: Console,
    folder: Path,
    command: Sequence[str],
    hint: str | None,
    tokens: Sequence[str],
    federated: bool,
    revocation_lists: bool,
    mode: str,
    key_mode: str,
    group: str | None,
    pids: Sequence[int],
    pid_files: Sequence[Path],
    signal_name: str,
    address: str | None,
    state: Path | None,
    once: bool,
) -> None:
    """Keep svid.pem, key.pem, combined.pem and bundle.pem in FOLDER/current fresh, and tell whoever reads them.

    All change at once, by one link. After each change of certificates, bundles or lists the processes are signalled and
    COMMAND is run, with SOJOURN_SVID_FOLDER in its environment; not for a token, which is read anew each time. When the
    identity is withdrawn the files are removed. Where the rule says `bind: process`, what was written is revoked when
    this command ends: then leave out --once.

    Example: sojourn svid write /run/nginx/svid --pid-file /run/nginx.pid
    sojourn svid write /run/app/svid --jwt vault.jwt=vault -- systemctl reload app
    """
    from attestor.client.files import SvidFiles
    from attestor.client.keeping import Wanted
    from attestor.command.running import workload_api

    wanted = Wanted(hint=hint, federated=federated, revocation_lists=revocation_lists, tokens=_tokens(tokens))
    modes, where = _modes(mode, key_mode, group), workload_api(address, state)
    with _listeners(pids, pid_files, signal_name, command) as listeners:
        teller = _Teller(console, listeners)
        if once:
            await teller.told(await _written_once(where, lambda: SvidFiles(folder, modes), wanted))
            teller.check()
        else:
            await _keep(console, where, SvidFiles(folder, modes), wanted, teller)


async def _keep(console: Console, where: str, files: Any, wanted: Wanted, teller: _Teller) -> None:
    from attestor.client.keeping import keep_files
    from attestor.client.source import JwtSource, X509Source
    from attestor.command.running import Waiting

    waiting = Waiting(console)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(X509Source.open(where, waiting=waiting))
        jwt = await stack.enter_async_context(JwtSource.open(where, waiting=waiting)) if wanted.tokens else None
        await keep_files(source, files, wanted, jwt=jwt, told=teller.told)


async def _written_once(where: str, made: Any, wanted: Wanted) -> Written:
    from attestor.client.keeping import Written
    from attestor.command.running import asking_workload_api

    async with asking_workload_api(where) as api:
        context = await api.fetch_x509()
        svid = wanted.svid_of(context.svids)
        tokens = {name: (await api.fetch_jwt(to, svid.id))[0] for name, to in wanted.tokens.items()}
    found = wanted.files(svid, context.bundles, context.revocations, tokens)
    return Written(folder=made().put(found), svid=svid, tokens=tokens, changed=frozenset(found))


class _Teller:
    """Prints a line for each state, and tells whoever is to be told."""

    def __init__(self, console: Console, listeners: Sequence[Listener]) -> None:
        self._console, self._listeners = console, listeners
        self._failed = False

    async def told(self, new: Written) -> None:
        """Raises NotFound: a process that was named by its pid has ended, or there is no such command."""
        from attestor.client.reload import tell_all
        from ca.errors import NotFound

        listeners = () if new.only_tokens else self._listeners
        reached, failed = await tell_all(listeners, {"SOJOURN_SVID_FOLDER": str(new.folder)})
        facts = {
            "folder": str(new.folder),
            "spiffe_id": str(new.svid.id),
            "serial": f"{new.svid.chain[0].serial_number:x}",
            "expires_at": new.svid.not_after.isoformat(),
            "tokens": {name: one.expires_at.isoformat() for name, one in new.tokens.items()},
            "changed": sorted(new.changed),
            "told": reached,
            "not_told": [str(one) for one in failed],
        }
        self._console.result(facts, "written  ", str(new.folder))
        for one in failed:
            if isinstance(one, NotFound):
                raise one
            self._failed = True
            self._console.error(one)

    def check(self) -> None:
        """Raises Unavailable: somebody was not told."""
        from ca.errors import Unavailable

        if self._failed:
            raise Unavailable("the files were written, and not everybody was told")


@contextmanager
def _listeners(
    pids: Sequence[int], pid_files: Sequence[Path], signal_name: str, command: Sequence[str]
) -> Iterator[Sequence[Listener]]:
    from attestor.client.reload import Command, PidFile, Process, signal_of
    from ca.runtime.clock import SystemClock

    number, clock = signal_of(signal_name), SystemClock()
    found = list[Any]()
    try:
        found += [PidFile(path, number, clock) for path in pid_files]
        for pid in pids:
            found.append(Process(pid, number))  # those before a missing one have to be let go
        found += [Command(command)] if command else []
        yield found
    finally:
        for one in found:
            one.close()


def _tokens(said: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found = dict[str, tuple[str, ...]]()
    for one in said:
        name, _, audiences = one.partition("=")
        split = tuple(audiences.split(","))
        if not _NAME.fullmatch(name) or len(name) > 200 or _TAKEN.match(name) or name in found:
            raise click.UsageError(f"`{name}` can't be the name of a token's file: expected a new one, as in vault.jwt")
        if not all(split):
            raise click.UsageError(f"expected the audience of the token `{name}`, as in {name}=vault")
        found[name] = split
    return found


def _modes(public: str, private: str, group: str | None) -> Modes:
    import grp

    from attestor.client.files import Modes

    try:
        number = None if group is None else grp.getgrnam(group).gr_gid
        return Modes(public=int(public, 8), private=int(private, 8), group=number)
    except KeyError as error:
        raise click.UsageError(f"there is no group `{group}`") from error
    except ValueError as error:
        raise click.UsageError("expected a mode in octal, as in 0640") from error
