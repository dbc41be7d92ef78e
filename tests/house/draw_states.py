"""Draws docs/states.md from the tables of transitions, and docs/metrics.md from the table of metrics.

python tests/house/draw_states.py            says what is out of date, exit code 1 if anything is
python tests/house/draw_states.py --write    brings it up to date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import broker.model.lease
import broker.model.task
import ca.rotation
from ca.runtime.metrics import TABLE

ROOT = Path(__file__).resolve().parents[2]

MACHINES: Mapping[str, Any] = {
    "Task": broker.model.task,
    "Lease": broker.model.lease,
    "Authority": ca.rotation,
}
"""Each module has TRANSITIONS, and its own story in its docstring."""

Move = tuple[str, str, str]


def moves(transitions: Mapping[Any, Any]) -> list[Move]:
    """(state, event, following state), from a table by state and event at once, or one after the other."""
    found: list[Move] = []
    for key, value in transitions.items():
        if isinstance(value, Mapping):
            found += [(str(key), str(event), str(after)) for event, after in value.items()]
        else:
            found.append((str(key[0]), str(key[1]), str(value)))
    return found


def states() -> str:
    """The page docs/states.md."""
    lines = [
        "# States",
        "",
        "Drawn from the tables in the code by `tests/house/draw_states.py --write`; don't edit.",
    ]
    for name, module in MACHINES.items():
        table = moves(module.TRANSITIONS)
        lines += ["", f"## {name}", "", f"`{module.__name__}.TRANSITIONS`", "", "```mermaid", "stateDiagram-v2"]
        lines += [f"    {line}" for line in _diagram(table)]
        lines += ["```", "", "| in state | when | then |", "|---|---|---|"]
        lines += [f"| `{before}` | {event} | `{after}` |" for before, event, after in table]
    return "\n".join(lines) + "\n"


def _diagram(table: list[Move]) -> Iterator[str]:
    """Arrows in the order of the table; several events between the same two states share one."""
    leaving = dict.fromkeys(before for before, _, _ in table)
    reached = dict.fromkeys(after for before, _, after in table if before != after)
    yield from (f"[*] --> {state}" for state in leaving if state not in reached)
    arrows: dict[tuple[str, str], list[str]] = {}
    for before, event, after in table:
        arrows.setdefault((before, after), []).append(event)
    yield from (f"{before} --> {after}: {', '.join(events)}" for (before, after), events in arrows.items())
    yield from (f"{state} --> [*]" for state in reached if state not in leaving)


def metrics() -> str:
    """The page docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Drawn from `ca/runtime/metrics.py` by `tests/house/draw_states.py --write`; don't edit.",
        "",
        "`GET /metrics` on the health port of each process, in the text format of Prometheus, beside the usual",
        "`process_*`. A label takes the values listed and no others: never an id, a path or anything a caller chose.",
        "A gauge that was never set is absent.",
        "",
        "| metric | kind | unit | labels | |",
        "|---|---|---|---|---|",
    ]
    for row in TABLE:
        labels = "<br>".join(f"`{label}`: {', '.join(values)}" for label, values in row.labels.items())
        lines.append(f"| `{row.name}` | {row.kind} | {row.unit} | {labels} | {row.help} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Every drawn page and what it should say."""
    return {Path("docs/states.md"): states(), Path("docs/metrics.md"): metrics()}


def stale() -> list[Path]:
    """The pages that don't say it."""
    return [path for path, text in pages().items() if not (ROOT / path).is_file() or (ROOT / path).read_text() != text]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for place, content in pages().items():
            (ROOT / place).write_text(content)
    elif old := stale():
        sys.exit("out of date, run `python tests/house/draw_states.py --write`: " + ", ".join(map(str, old)))
