"""sojourn secret put · versions · destroy: values that rest sealed at a target of kind `static`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from broker.command.options import Where, operator_options
from ca.runtime.terminal import Console, command_options


@click.command()
@click.argument("value", metavar="TARGET/NAME")
@click.option("--file", "path", type=click.Path(path_type=Path), help="Read it from this file (default: stdin).")
@click.option("--keep-newline", is_flag=True, help="Keep the line break at its end.")
@operator_options
@command_options
async def put(console: Console, where: Where, *, value: str, path: Path | None, keep_newline: bool) -> None:
    """Put a value, or a further version of it, at a target of kind `static`. It rests sealed and leaves through leases.

    It is read from a file or stdin and never from the command line, which other processes can read.

    Example: sojourn secret put partner-api/key --file /run/secrets/partner-key
    """
    from broker.command.doors import as_operator
    from broker.command.tables import plain
    from broker.wire.values import PutValue

    if path is None and sys.stdin.isatty():
        raise click.UsageError("a terminal shows what is typed: give the value with --file or by a pipe")
    content = sys.stdin.buffer.read(_MOST) if path is None else _content(path)
    ask = PutValue.model_validate({"value": _text(content, keep_newline=keep_newline)})
    async with as_operator(where) as broker:
        told = await broker.put_value(_checked(value), ask)
    console.result(plain(told), f"{value} has version {told.version}")


@click.command()
@click.argument("value", metavar="TARGET/NAME")
@operator_options
@command_options
async def versions(console: Console, where: Where, value: str) -> None:
    """List the versions of a value, the newest first; the newest that was not destroyed is handed over.

    Example: sojourn secret versions partner-api/key
    """
    from broker.command.doors import as_operator
    from broker.command.tables import plain
    from ca.runtime.terminal import when

    async with as_operator(where) as broker:
        told, now = await broker.value_versions(_checked(value)), broker.clock.now()
    if console.json:
        console.result(plain(told))
        return
    rows = [
        (
            str(one.version),
            when(one.made_at, now),
            "destroyed" if one.destroyed_at is not None else "rests",
            None if one.destroyed_at is None else when(one.destroyed_at, now),
            one.key,
        )
        for one in told.versions
    ]
    console.table(("version", "put", "state", "destroyed", "sealing key"), rows)


@click.command()
@click.argument("value", metavar="TARGET/NAME")
@click.option("--version", "number", type=click.IntRange(1), required=True, help="Which one.")
@operator_options
@command_options
async def destroy(console: Console, where: Where, value: str, number: int) -> None:
    """Destroy one version of a value; that it was is kept. Whoever was told it knows it still.

    Example: sojourn secret destroy partner-api/key --version 1
    """
    from broker.command.doors import as_operator

    async with as_operator(where) as broker:
        await broker.destroy_value(_checked(value), number)
    console.result({"value": value, "destroyed": number}, f"version {number} of {value} is destroyed")


_MOST = 256 * 1024


def _content(path: Path) -> bytes:
    from ca.errors import Malformed

    try:
        with path.open("rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise Malformed(f"can't read `{path}`: {(error.strerror or 'unknown reason').lower()}") from error


def _text(content: bytes, *, keep_newline: bool) -> str:
    """The value as text; a decoding error would carry it in its arguments, so none is chained."""
    from broker.wire.values import LONGEST
    from ca.errors import Malformed

    text = content.decode(errors="replace")
    if text.encode() != content:
        raise Malformed("a value is text in UTF-8: encode other bytes, as base64")
    text = text if keep_newline else text.removesuffix("\n").removesuffix("\r")
    if not text or len(text) > LONGEST or "\x00" in text:
        raise Malformed(f"expected a value of 1 to {LONGEST} characters without zero bytes")
    return text


def _checked(value: str) -> str:
    target, slash, name = value.partition("/")
    if not slash or not target or not name or "/" in name:
        raise click.UsageError("expected TARGET/NAME, as in `partner-api/key`")
    return value
