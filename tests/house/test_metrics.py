"""Every count in the code names a row of the table, and the table's closed sets are the code's own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.engines import ENGINES
from broker.model.decision import Effect
from broker.model.lease import CloseReason, LeaseState
from broker.model.task import EndReason
from ca.runtime.metrics import TABLE
from house.tree import parsed, shown, sources

ROWS = {row.name: row for row in TABLE}
VERBS = {"count", "set", "add", "observe", "value"}


def calls() -> Iterator[tuple[str, str, dict[str | None, ast.expr]]]:
    """Where, which metric and which labels, of each call that counts."""
    for path in sources():
        for node in ast.walk(parsed(path)):
            if _counts(node, path):
                assert isinstance(node, ast.Call)
                name = node.args[0]
                assert isinstance(name, ast.Constant)
                labels = {keyword.arg: keyword.value for keyword in node.keywords}
                yield f"{shown(path)}:{node.lineno}", str(name.value), labels


def _counts(node: ast.AST, path: Path) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
        return False
    first = node.args[0]
    named = isinstance(first, ast.Constant) and str(first.value).startswith("sojourn_")
    return named and node.func.attr in VERBS and path.name != "metrics.py"


def test_every_count_has_its_row_and_its_labels() -> None:
    """Else it would fail in the middle of what it counts."""
    wrong = []
    for where, name, labels in calls():
        row = ROWS.get(name)
        if row is None:
            wrong.append(f"{where}: no row `{name}`")
        elif None not in labels and labels.keys() != row.labels.keys():
            wrong.append(f"{where}: `{name}` has the labels {sorted(row.labels)}")
        else:
            wrong += [
                f"{where}: `{value.value!s}` is no value of `{label}`"
                for label, value in labels.items()
                if label and isinstance(value, ast.Constant) and value.value not in row.labels[label]
            ]
    assert wrong == []


def test_every_loop_that_is_counted_has_its_name_in_the_table() -> None:
    """`metrics.ticks("reaper")`."""
    known = ROWS["sojourn_loop_ticks_total"].labels["loop"]
    wrong = [
        f"{shown(path)}:{node.lineno}: {node.args[0].value!s}"
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "ticks"
        and node.args
        if isinstance(node.args[0], ast.Constant) and node.args[0].value not in known
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("sojourn_decisions_total", "effect", set(Effect)),
        ("sojourn_leases", "state", set(LeaseState)),
        ("sojourn_leases_closed_total", "reason", set(CloseReason)),
        ("sojourn_leases_closed_total", "engine", set(ENGINES)),
        ("sojourn_task_endings_total", "reason", set(EndReason)),
    ],
)
def test_the_closed_sets_hold_what_the_code_may_say(name: str, label: str, values: set[str]) -> None:
    """The table stands below the broker and can't import its words; this keeps them the same."""
    assert set(map(str, values)) <= set(ROWS[name].labels[label])
