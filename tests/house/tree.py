"""What the tests of the house look at: the files of the repository, read once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ca", "attestor", "broker")


def sources(*folders: str) -> list[Path]:
    """Every .py file below `folders` (by default of the product) that was written by hand."""
    found = (path for folder in folders or PACKAGES for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if not path.name.endswith("_pb2.py"))


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of the file at `path`."""
    return ast.parse(path.read_text(), filename=str(path))


def shown(path: Path) -> str:
    """A path as people write it."""
    return str(path.relative_to(ROOT))


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every text constant of a file, with its line."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
