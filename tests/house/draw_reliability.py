"""Draws the figures of docs/reliability.md from the record of kills (`tests/faults/record.jsonl`).

python tests/house/draw_reliability.py            says when they are out of date, exit code 1 then
python tests/house/draw_reliability.py --write    brings them up to date
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from faults.record import OK, OUTSIDE, Kill, read

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_PART = re.compile(r"(<!-- drawn: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_KINDS = {
    "lost": ("is lost", "does not open", "no such role", "no such identity"),
    "left half done": ("receipt", "chain", "events", "its end says", "never became"),
    "a life broke": ("a life broke", "the last life broke"),
}
"""Words of the oracle's; whatever else it says, something leaked."""


def kind_of(kill: Kill) -> str:
    """`ok`, or what kind of promise was broken."""
    if kill.verdict == OK:
        return OK
    return next((kind for kind, words in _KINDS.items() if any(word in kill.verdict for word in words)), "leaked")


def totals(kills: Sequence[Kill]) -> Iterator[str]:
    """How many, and what came of them."""
    said = Counter(kind_of(kill) for kill in kills)
    yield "| | |"
    yield "|---|---|"
    yield f"| kills on record | {sum(kill.point != '-' for kill in kills):,} |"
    yield f"| … by a fail-point of its own | {sum(kill.point not in {OUTSIDE, '-'} for kill in kills):,} |"
    yield f"| … by SIGKILL from outside, at any moment | {sum(kill.point == OUTSIDE for kill in kills):,} |"
    yield f"| different points | {len({kill.point for kill in kills} - {OUTSIDE, '-'})} |"
    yield f"| worlds | {len({(kill.seed, kill.store, kill.engine) for kill in kills}):,} |"
    yield f"| commits | {len({kill.commit.rstrip('+') for kill in kills})} |"
    for kind in ("leaked", *_KINDS):
        yield f"| {kind} | {said[kind]} |"


def places(kills: Sequence[Kill]) -> Iterator[str]:
    """Engines by stores."""
    stores = sorted({kill.store for kill in kills})
    count = Counter((kill.engine, kill.store) for kill in kills if kill.point != "-")
    yield "| engine | " + " | ".join(f"store on {store}" for store in stores) + " |"
    yield "|---" * (len(stores) + 1) + "|"
    for engine in sorted({kill.engine for kill in kills}):
        yield f"| {engine} | " + " | ".join(f"{count[engine, store]:,}" for store in stores) + " |"


def matrix(kills: Sequence[Kill]) -> Iterator[str]:
    """Points by engines and stores."""
    columns = sorted({(kill.engine, kill.store) for kill in kills})
    count = Counter((kill.point, kill.engine, kill.store) for kill in kills)
    yield "| point | " + " | ".join(f"{engine}, {store}" for engine, store in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    pairs = sorted({kill.point.removesuffix(".before").removesuffix(".after") for kill in kills} - {OUTSIDE, "-"})
    for pair in pairs:
        cells = (f"{count[f'{pair}.before', *where]} · {count[f'{pair}.after', *where]}" for where in columns)
        yield f"| `{pair}` | " + " | ".join(cells) + " |"
    yield f"| {OUTSIDE} | " + " | ".join(str(count[OUTSIDE, *where]) for where in columns) + " |"


def broken(kills: Sequence[Kill]) -> Iterator[str]:
    """Every promise that was ever broken, and at which commit."""
    found = [kill for kill in kills if kill.verdict != OK]
    if not found:
        yield "None is on record."
        return
    yield "| commit | store | engine | died at | what the oracle saw |"
    yield "|---|---|---|---|---|"
    yield from (f"| {k.commit} | {k.store} | {k.engine} | {k.point} | {k.verdict} |" for k in found)


PARTS: dict[str, Callable[[Sequence[Kill]], Iterator[str]]] = {
    "totals": totals, "places": places, "matrix": matrix, "broken": broken,
}  # fmt: skip


def drawn(page: str, kills: Sequence[Kill]) -> str:
    """The page with the figures it should have. Raises KeyError: it asks for a part there is none of."""
    return _PART.sub(lambda part: f"{part[1]}{chr(10).join(PARTS[part[2]](kills))}\n{part[3]}", page)


def main(words: Sequence[str]) -> int:
    """The command line."""
    text = PAGE.read_text()
    fresh = drawn(text, list(read()))
    if list(words) == ["--write"]:
        PAGE.write_text(fresh)
        return 0
    if text != fresh:
        sys.stderr.write("out of date, run `python tests/house/draw_reliability.py --write`\n")
    return int(text != fresh)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
