"""The record of kills: one line of JSON each, appended and never changed; `docs/reliability.md` is drawn from it.

    {"s":3735928559,"n":7,"c":"3651eea","d":"sqlite","e":"postgres","p":"obtain.create.after","v":"ok"}

`s` seeds the world and `n` counts the lives in it; `c` the commit, with `+` where files were changed; `d` the store,
`e` the engine; `p` the point a broker died at, or `SIGKILL` from outside; `v` what the oracle saw afterwards, `ok` or
the first broken promise. A kill is on record only if the process died by that very signal, was started again, and the
oracle looked.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from house.tree import ROOT

RECORD = ROOT / "tests" / "faults" / "record.jsonl"
LONGEST = 120
OUTSIDE = "SIGKILL"
OK = "ok"


@dataclass(frozen=True, slots=True)
class Kill:
    """One line."""

    seed: int
    life: int
    commit: str
    store: str
    engine: str
    point: str
    verdict: str = OK

    def line(self) -> str:
        """At most `LONGEST` bytes: of a broken promise the beginning is enough."""
        names = ("s", "n", "c", "d", "e", "p", "v")
        values = (self.seed, self.life, self.commit, self.store, self.engine, self.point, self.verdict)
        text = json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":"))
        over = len(text) + 1 - LONGEST
        return f"{text}\n" if over <= 0 else f'{text[: -2 - over]}"}}\n'


def append(kills: Sequence[Kill], place: Path = RECORD) -> None:
    """Add lines at the end, whole ones."""
    with place.open("a") as file:
        file.write("".join(kill.line() for kill in kills))


def read(place: Path = RECORD) -> Iterator[Kill]:
    """Every line. Raises KeyError, ValueError: it is not one."""
    if not place.exists():
        return
    with place.open() as file:
        for line in file:
            said = json.loads(line)
            yield Kill(*(said[key] for key in ("s", "n", "c", "d", "e", "p", "v")))


def commit() -> str:
    """What is being killed."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short=7", "HEAD") + ("+" if git("status", "--porcelain", "--", "*.py", "*.sql") else "")
