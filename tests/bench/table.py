"""A figure beside its raw limit, and how a run of them is shown and kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bench.timing import Load, Spread


class Unit(StrEnum):
    """What is counted."""

    RATE = "/s"
    MILLISECONDS = "ms"
    KIBIBYTES = "KiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of ours, what limits it physically (measured in the same run), and how.

    `ratio` is ours by limit: of a rate the share that is reached, of a time how many times as long it takes.
    """

    bench: str
    what: str
    unit: Unit
    ours: float
    limit: float
    limit_is: str
    n: int

    @property
    def ratio(self) -> float:
        """Ours by the limit."""
        return self.ours / self.limit

    @property
    def told_ratio(self) -> str:
        """For people."""
        return f"{100 * self.ratio:.0f} %" if self.unit is Unit.RATE else f"{self.ratio:.1f} times"


def rate_rows(bench: str, what: str, ours: Load, limit: Load, limit_is: str, *, per_core: bool = False) -> list[Row]:
    """A rate, and the same per CPU second where one process did the work."""
    rows = [
        Row(
            bench=bench,
            what=what,
            unit=Unit.RATE,
            ours=ours.rate,
            limit=limit.rate,
            limit_is=limit_is,
            n=ours.done,
        )
    ]
    if per_core:
        rows.append(
            Row(
                bench=bench,
                what=f"{what}, per CPU second",
                unit=Unit.RATE,
                ours=ours.rate_per_core,
                limit=limit.rate_per_core,
                limit_is=limit_is,
                n=ours.done,
            )
        )
    return rows


def time_rows(bench: str, what: str, ours: Spread, limit: Spread, limit_is: str) -> list[Row]:
    """Half of them, and all but one in a hundred."""
    return [
        Row(
            bench=bench,
            what=f"{what}, {name}",
            unit=Unit.MILLISECONDS,
            ours=ours.milliseconds(share),
            limit=limit.milliseconds(share),
            limit_is=limit_is,
            n=ours.n,
        )
        for name, share in (("p50", 0.50), ("p99", 0.99))
    ]


def printed(rows: Sequence[Row]) -> str:
    """The table, as it stands in docs/performance.md."""
    head = ("what", "sojourn", "raw limit", "ratio", "n", "the raw limit is")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(_line(line, widths) for line in (lines[0], rule, *lines[1:]))


def machine() -> dict[str, Any]:
    """Where this was measured."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def kept(path: Path, about: dict[str, Any], rows: Iterable[Row]) -> None:
    """Write the run as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = [{**asdict(row), "ratio": row.ratio} for row in rows]
    path.write_text(json.dumps({"machine": about, "rows": told}, indent=2) + "\n")


def _cells(row: Row) -> tuple[str, ...]:
    ours, limit = _figure(row.ours, row.unit), _figure(row.limit, row.unit)
    return (row.what, ours, limit, row.told_ratio, str(row.n), row.limit_is)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    numbers = range(1, 5)
    padded = (
        cell.rjust(width) if column in numbers else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _figure(value: float, unit: Unit) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
