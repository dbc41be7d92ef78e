"""Reading SQL text just far enough: where its parameters are, and where a statement ends.

Only what is neither a string, nor a quoted identifier, nor a comment counts. PostgreSQL takes `$n` as it stands. SQLite
would take `$2` for a *name* and bind by first appearance, so `VALUES ($2, $1)` would silently swap two values
(traps 27): for it every `$n` becomes `?n`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import LiteralString, TypeVar

T = TypeVar("T")

AT_ONCE = (100, 10, 1)
"""How many rows one statement may hold: few sizes, so that few texts have to be prepared."""

_TOKEN = re.compile(
    r"""
      (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" )
    | (?P<comment> --[^\n]* | /\*.*?\*/ )
    | \$(?P<parameter> [0-9]+ )
    | (?P<end> ; )
    | (?P<open> ' | " | /\* )
    """,
    re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=4096)
def numbered(sql: str) -> str:
    """`sql` with `?n` for `$n`; what was rewritten once is remembered.

    Raises:
        RuntimeError: a number between 1 and the highest is missing (PostgreSQL could not tell its type), there is a
            `$0`, or a string or comment never ends.
    """
    used: set[int] = set()

    def rewrite(match: re.Match[str]) -> str:
        number = match["parameter"]
        if number is None:
            return match[0]
        used.add(int(number))
        return f"?{int(number)}"

    text = "".join(rewrite(part) if isinstance(part, re.Match) else part for part in _parts(sql))
    if used != set(range(1, len(used) + 1)):
        raise RuntimeError(f"the parameters of a statement must be $1 to $n without a gap, not {sorted(used)}")
    return text


def pieces(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """All of `rows`, as many in a piece as one statement takes."""
    at = 0
    while left := len(rows) - at:
        size = next(one for one in AT_ONCE if one <= left)
        yield rows[at : at + size]
        at += size


@lru_cache(maxsize=256)
def tuples(rows: int, columns: int) -> LiteralString:
    """What stands behind VALUES: `($1, $2), ($3, $4)` for two rows of two columns."""
    row = range(1, columns + 1)
    return ", ".join(f"({', '.join(f'${at * columns + n}' for n in row)})" for at in range(rows))


def statements(text: str) -> list[str]:
    """The statements of a script, without their semicolons; what is only comment or space is left out.

    Raises:
        RuntimeError: a string or comment never ends.
    """
    found: list[str] = []
    current: list[str] = []
    real = False
    for part in _parts(text):
        if isinstance(part, re.Match) and part["end"]:
            if real:
                found.append("".join(current).strip())
            current, real = [], False
            continue
        literal = part if isinstance(part, str) else part[0]
        current.append(literal)
        real = real or (bool(literal.strip()) and not (isinstance(part, re.Match) and part["comment"]))
    if real:
        found.append("".join(current).strip())
    return found


def _parts(sql: str) -> Iterator[str | re.Match[str]]:
    position = 0
    for match in _TOKEN.finditer(sql):
        if match["open"]:
            raise RuntimeError(f"a `{match['open']}` in a statement is never closed")
        yield sql[position : match.start()]
        yield match
        position = match.end()
    yield sql[position:]
