"""sojourn audit: read what was decided and done, and prove that nobody changed it."""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from broker.command.options import Where, operator_options
from ca.runtime.terminal import Console, Style, Styled, command_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.audit.chain import Head
    from broker.client.broker import Broker
    from broker.command.audit_reading import Verifier
    from broker.wire.audit import EntryTold

EVERY = 1.0
"""Seconds between two looks of `tail --follow`."""

_FACTS = frozenset({"effect", "role", "reason", "state", "words", "purpose", "sessions_cut", "added", "removed"})
"""What of a receipt's body stands in its line."""


@click.group()
def audit() -> None:
    """Read and verify the audit."""


@audit.command()
@click.option("-n", "count", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many entries.")
@click.option("--follow", "-f", is_flag=True, help="Go on as entries are written, until Ctrl-C.")
@operator_options
@command_options
async def tail(console: Console, where: Where, count: int, *, follow: bool) -> None:
    """Show the newest entries.

    Example: sojourn audit tail -n 50 --follow
    """
    from broker.command.audit_reading import newest
    from broker.command.doors import as_operator
    from broker.command.tables import plain

    async with as_operator(where) as broker:
        found = await newest(broker, count)
        if console.json and not follow:
            console.result(plain(found))
            return
        _print(console, found)
        if follow:
            await _follow(console, broker, found)


async def _follow(console: Console, broker: Broker, found: Sequence[EntryTold]) -> None:
    from broker.command.audit_reading import following, heads

    seen = {head.writer: head.number for head in await heads(broker)}
    seen |= {one.writer: one.number for one in found}
    while True:
        for head in await heads(broker):
            while seen.get(head.writer, 0) < head.number:
                fresh = await following(broker, head.writer, seen.get(head.writer, 0))
                if not fresh:
                    break
                _print(console, fresh)
                seen[head.writer] = fresh[-1].number
        await broker.clock.sleep(EVERY)


def _print(console: Console, found: Sequence[EntryTold]) -> None:
    for one in found:
        receipt = one.receipt
        if console.json:
            console.result(one.model_dump(mode="json"))
            continue
        about = receipt.get("lease") or receipt.get("task") or ""
        body = receipt.get("body")
        facts = ", ".join(f"{name} {value}" for name, value in body.items() if _tells(name, value)) if body else ""
        moment = str(receipt.get("at", ""))[:23].replace("T", " ")
        kind = Styled(f"{receipt.get('kind', ''):<20}", Style.NOTE)
        console.say(Styled(moment, Style.DIM), "  ", kind, f"  {about}  {receipt.get('actor', '')}  {facts}")


def _tells(name: str, value: object) -> bool:
    return name in _FACTS and value is not None and value != ""


@audit.command()
@click.option(
    "--export", type=click.Path(path_type=Path), help="Also write what was read to this file, one entry a line."
)
@click.option("--from", "source", type=click.Path(path_type=Path), help="Verify such a file, without a broker.")
@operator_options
@command_options
async def verify(console: Console, where: Where, export: Path | None, source: Path | None) -> None:
    """Read every chain and compute it anew; name the first entry that is not what was written.

    Of a chain whose beginning was forgotten in time, what is left is verified from there, which is said.
    An export and the heads printed here, kept elsewhere, also show a chain that was rewritten as a whole.

    Example: sojourn audit verify --export audit.jsonl
    """
    if source is not None and export is not None:
        raise click.UsageError("--from reads an export, --export writes one: not both")
    verifier, ends = _read_file(source) if source is not None else await _read_broker(console, where, export)
    told = [{"writer": head.writer, "number": head.number, "hash": head.hash} for head in ends]
    cuts = [{"writer": cut.writer, "number": cut.number, "hash": cut.hash} for cut in verifier.cuts.values()]
    console.result(
        {"entries": verifier.entries, "well": True, "heads": told, "cuts": cuts, "unbacked": list(verifier.unbacked)},
        Styled("well", Style.GOOD),
        f"  {verifier.entries} entries in {len(ends)} chains are what was written",
    )
    for cut in verifier.cuts.values():
        word = "  by the broker's word: the receipt of the cut is gone too" if cut.writer in verifier.unbacked else ""
        console.say(Styled("  from  ", Style.DIM), f"{cut.writer}:{cut.number + 1}  after {cut.hash}{word}")
    for head in ends:
        console.say(Styled("  head  ", Style.DIM), f"{head.writer}:{head.number}  {head.hash}")


def _read_file(path: Path) -> tuple[Verifier, Sequence[Head]]:
    from broker.command.audit_reading import Verifier, exported, exported_cuts

    verifier = Verifier(cuts=exported_cuts(path))
    for part in exported(path):
        verifier.take(part)
    return verifier, verifier.finish()


async def _read_broker(console: Console, where: Where, export: Path | None) -> tuple[Verifier, Sequence[Head]]:
    from broker.command.audit_reading import Verifier, both_ends, pages, written, written_cut
    from broker.command.doors import as_operator

    async with as_operator(where) as broker:
        ends = await both_ends(broker)
        verifier = Verifier([end for end, _ in ends], [cut for _, cut in ends])
        with ExitStack() as stack:
            file = stack.enter_context(nullcontext() if export is None else _private(export))
            if file is not None:
                file.writelines(map(written_cut, verifier.cuts.values()))
            with console.progress("verifying"):
                async for part in pages(broker):
                    if file is not None:
                        file.writelines(map(written, part))
                    verifier.take(part)
    return verifier, verifier.finish()


def _private(path: Path) -> TextIO:
    """A new file of our own: the audit says who does what."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise click.UsageError(f"can't write `{path}`: {(error.strerror or 'unknown reason').lower()}") from error
    return os.fdopen(descriptor, "w", encoding="utf-8")
