"""Sizes and names: a file is read in one sitting, a body on one screen."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

from house.tree import ROOT, parsed, shown, sources

LONGEST_FILE = 400
MEDIAN_FILE = 200
LONGEST_BODY = 50
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core", "shared"}
HIDDEN = {".venv", ".git", "build", "node_modules"}


def lines(path: Path) -> int:
    """Lines of a file."""
    return path.read_text().count("\n")


def bodies(path: Path) -> Iterator[tuple[int, str, int]]:
    """Line, name and length of each function's body, its docstring left out."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                yield node.lineno, node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_no_file_is_longer_than_a_sitting() -> None:
    """Product and tests alike."""
    assert [f"{shown(path)}: {lines(path)}" for path in sources("ca", "attestor", "broker", "tests")
            if lines(path) > LONGEST_FILE] == []  # fmt: skip


def test_the_median_file_is_short() -> None:
    """Of those that say something."""
    assert statistics.median(found for path in sources() if (found := lines(path)) > 0) <= MEDIAN_FILE


def test_no_body_is_longer_than_a_screen() -> None:
    """Product and tests alike."""
    assert [
        f"{shown(path)}:{line} {name}: {length}"
        for path in sources("ca", "attestor", "broker", "tests")
        for line, name, length in bodies(path)
        if length > LONGEST_BODY
    ] == []


def test_no_name_says_nothing() -> None:
    """A room is named for what it holds."""
    found = [path for path in ROOT.rglob("*") if not HIDDEN & set(path.relative_to(ROOT).parts)]
    assert [shown(path) for path in found if path.stem.strip("_") in SAYS_NOTHING] == []
