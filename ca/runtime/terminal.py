"""What a command prints: tables, colours on a terminal, one sentence for an error, and JSON for machines.

    @click.command()
    @click.argument("name")
    @command_options                                  adds --json; a Problem becomes a sentence and an exit code
    async def show(console: Console, name: str) -> None:
        console.table(("task", "ends"), [(task.id, when(task.deadline, now))])

stdout holds results and nothing else; errors and progress go to stderr. With `--json` stdout is JSON, and there is no
colour and no progress anywhere. What comes from elsewhere is printed as text: a purpose an agent chose can't move the
cursor or colour the screen, because every control character is escaped here.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json as json_format
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, TextIO

from ca.errors import Problem, Unavailable

ENOUGH = 1.0
"""Seconds a piece of work may take before a terminal shows that it goes on."""

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MISUSE = frozenset({"bad-settings", "usage"})


class Exit(IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class Style(StrEnum):
    """How a word looks on a terminal that shows colours."""

    BOLD = "1"
    DIM = "2"
    GOOD = "32"
    BAD = "31"
    WARN = "33"
    NOTE = "36"


@dataclass(frozen=True, slots=True)
class Styled:
    """A text with a style; its width is the text's."""

    text: str
    style: Style


Cell = str | int | float | bool | datetime | Styled | None


def exit_code(problem: Problem) -> Exit:
    """The code a command that ends with `problem` answers."""
    if isinstance(problem, Unavailable):
        return Exit.UNREACHABLE
    return Exit.USAGE if problem.code in _MISUSE else Exit.FAILED


def duration(length: timedelta) -> str:
    """`4 min 10 s`: the two largest units, none of them zero."""
    seconds = abs(length.total_seconds())
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    left, parts = round(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2])


def when(moment: datetime, now: datetime) -> str:
    """`in 4 min 10 s`, `2 h 5 min ago` or `now`."""
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {duration(moment - now)}" if moment > now else f"{duration(now - moment)} ago"


def printable(text: str) -> str:
    """`text` with every control, bidirectional and unassigned character escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class Console:
    """Where a command prints."""

    def __init__(
        self,
        *,
        json: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.json = json
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        plain = json or bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        self._colour_out = self._out.isatty() and not plain
        self._colour_err = self._err.isatty() and not plain
        self._width = self._terminal_width()

    def say(self, *parts: str | Styled) -> None:
        """One line for a human; nothing with `--json`."""
        if not self.json:
            print("".join(self._styled(part) for part in parts), file=self._out, flush=True)

    def result(self, value: Any, *human: str | Styled) -> None:
        """The result of a command: `value` with `--json`, else the line `human`, or the mapping `value` as a list."""
        if self.json:
            self._print_json(value)
        elif human:
            self.say(*human)
        elif isinstance(value, Mapping):
            wide = max((_width(str(key)) for key in value), default=0)
            for key, inner in value.items():
                self.say(Styled(f"{key}{' ' * (wide - _width(str(key)))}", Style.DIM), "  ", _text(inner))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, empty: str = "nothing to show") -> None:
        """Rows under their columns; with `--json` a list of objects that have the columns as keys."""
        found = [list(row) for row in rows]
        if self.json:
            keys = [column.replace(" ", "_") for column in columns]
            self._print_json([dict(zip(keys, map(_plain, row), strict=True)) for row in found])
            return
        if not found:
            self.say(Styled(empty, Style.DIM))
            return
        for line in self._drawn(columns, found):
            print(line, file=self._out)
        self._out.flush()

    def error(self, error: Problem | str) -> None:
        """One sentence on stderr."""
        if self.json:
            body: dict[str, Any] = {"error": str(error)}
            if isinstance(error, Problem):
                body |= {"code": error.code, **error.details}
            print(json_format.dumps(body, ensure_ascii=False), file=self._err, flush=True)
            return
        for line in str(error).splitlines():
            print(
                f"{self._styled(Styled('error:', Style.BAD), err=True)} {printable(line)}", file=self._err, flush=True
            )

    @contextmanager
    def progress(self, label: str) -> Iterator[None]:
        """Show that `label` goes on, when it takes longer than a second and stderr is a terminal."""
        if self.json or not self._err.isatty():
            yield
            return
        spinner = _Spinner(self._err, printable(label))
        spinner.begin()
        try:
            yield
        finally:
            spinner.end()

    def _print_json(self, value: Any) -> None:
        print(json_format.dumps(value, ensure_ascii=False, default=_plain), file=self._out, flush=True)

    def _styled(self, part: str | Styled, *, err: bool = False) -> str:
        if isinstance(part, str):
            return printable(part)
        coloured = self._colour_err if err else self._colour_out
        return f"\x1b[{part.style}m{printable(part.text)}\x1b[0m" if coloured else printable(part.text)

    def _drawn(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
        widths = self._fitted(
            [max(_width(column), *(_width(_text(row[index])) for row in rows)) for index, column in enumerate(columns)]
        )
        rule = ["─" * (width + 2) for width in widths]
        yield f"┌{'┬'.join(rule)}┐"
        yield self._row([Styled(column, Style.BOLD) for column in columns], widths)
        yield f"├{'┼'.join(rule)}┤"
        for row in rows:
            yield self._row(row, widths)
        yield f"└{'┴'.join(rule)}┘"

    def _row(self, row: Sequence[Cell], widths: Sequence[int]) -> str:
        cells = []
        for cell, width in zip(row, widths, strict=True):
            text = _cut(_text(cell), width)
            space = " " * (width - _width(text))
            shown = self._styled(Styled(text, cell.style) if isinstance(cell, Styled) else text)
            right = isinstance(cell, (int, float)) and not isinstance(cell, bool)
            cells.append(f"{space}{shown}" if right else f"{shown}{space}")
        return f"│ {' │ '.join(cells)} │"

    def _fitted(self, widths: list[int]) -> list[int]:
        """The widths made smaller, the widest first, until the table fits the terminal."""
        while self._width and sum(widths) + 3 * len(widths) + 1 > self._width and max(widths) > 8:
            widths[widths.index(max(widths))] -= 1
        return widths

    def _terminal_width(self) -> int | None:
        if not self._out.isatty():
            return None
        try:
            return os.get_terminal_size(self._out.fileno()).columns or None
        except OSError:
            return None


def command_options(function: Callable[..., Any]) -> Callable[..., None]:
    """Add `--json`, hand the command its `console`, and turn a Problem into a sentence and an exit code.

    An `async def` is run to its end. Ctrl-C ends with 130 and no traceback.
    """
    import click

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **options: Any) -> None:
        console = Console(json=as_json)
        try:
            answer = function(*args, console=console, **options)
            if inspect.iscoroutine(answer):
                answer = asyncio.run(answer)
        except Problem as problem:
            console.error(problem)
            raise SystemExit(exit_code(problem)) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise SystemExit(Exit.INTERRUPTED) from None
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - Python flushes it at exit
            raise SystemExit(Exit.FAILED) from None
        raise SystemExit(answer if isinstance(answer, int) else Exit.OK)

    return command


class _Spinner:
    """A line on stderr that moves; drawn by a timer of its own thread because commands block as they like."""

    def __init__(self, err: TextIO, label: str) -> None:
        import threading

        self._err = err
        self._label = label
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _draw(self) -> None:
        frame = 0
        if self._ended.wait(ENOUGH):
            return
        while not self._ended.wait(0.1):
            self._err.write(f"\r{_FRAMES[frame % len(_FRAMES)]} {self._label}")
            self._err.flush()
            frame += 1
        self._err.write("\r\x1b[K")
        self._err.flush()


def _text(cell: Any) -> str:
    if isinstance(cell, Styled):
        return printable(cell.text)
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, datetime):
        return cell.strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    if isinstance(cell, (list, tuple, set, frozenset)):
        return ", ".join(map(_text, cell))
    return printable(str(cell))


def _plain(cell: Any) -> Any:
    if isinstance(cell, Styled):
        return cell.text
    if isinstance(cell, datetime):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    if cell is None or isinstance(cell, (bool, int, float, str, list, dict)):
        return cell
    return sorted(map(str, cell)) if isinstance(cell, (set, frozenset)) else str(cell)


def _width(text: str) -> int:
    """Columns on the screen: wide letters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"
