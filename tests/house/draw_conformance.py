"""Draws docs/conformance.md: each clause of the SPIFFE standard, and the tests that prove it.

The clauses stand in tests/conformance/clauses.yaml. A test proves a clause when its name begins with the id,
`test_tb_4_an_empty_bundle_trusts_nothing`, or when it is marked, `@pytest.mark.clause("TB-4", "WL-9")`; one mark may
stand on a class, or on a file (`pytestmark = pytest.mark.clause("BR-3")`). Ids are written out, never computed.

python tests/house/draw_conformance.py            says what is out of date, exit code 1 if anything is
python tests/house/draw_conformance.py --write    brings it up to date
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests" / "conformance" / "clauses.yaml"
PAGE = ROOT / "docs" / "conformance.md"
LEVELS = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "means")

PENDING: frozenset[str] = frozenset()
"""Clauses that have no test because what they are about is not built yet. Nothing is put here to silence a test."""

_NAMED = re.compile(r"test_(id|x509|jwt|wit|tb|ep|wl|br|fed)_(\d+)_")


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One row of the table; `elsewhere` says why no test of ours can prove it."""

    id: str
    document: str
    level: str
    section: str
    text: str
    elsewhere: str = ""

    @property
    def demanded(self) -> bool:
        """Whether it must have a test."""
        return self.level in {"MUST", "MUST NOT"} and not self.elsewhere


@dataclass(frozen=True, order=True)
class Proof:
    """One test."""

    path: str
    name: str


def clauses() -> list[Clause]:
    """The table, in its order."""
    return [
        Clause(id=clause, document=document["name"], **{name: str(value) for name, value in row.items()})
        for document in yaml.safe_load(TABLE.read_text())["documents"]
        for clause, row in document["clauses"].items()
    ]


def proofs(root: Path = ROOT) -> dict[str, list[Proof]]:
    """The tests of each id that any of them names, known or not."""
    found: dict[str, set[Proof]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        shown = str(path.relative_to(root))
        for name, ids in _tests(ast.parse(path.read_text(), filename=shown)):
            for clause in ids:
                found.setdefault(clause, set()).add(Proof(shown, name))
    return {clause: sorted(tests) for clause, tests in found.items()}


def unproven(table: Iterable[Clause], tests: Mapping[str, object]) -> list[str]:
    """The ids that must have a test and have none."""
    return [clause.id for clause in table if clause.demanded and clause.id not in tests]


def _tests(module: ast.Module) -> Iterator[tuple[str, set[str]]]:
    on_file = {
        clause
        for node in module.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)
        for mark in (node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value])
        for clause in _marked(mark)
    }
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            on_class = on_file | {clause for mark in node.decorator_list for clause in _marked(mark)}
            yield from _functions(node.body, on_class)
    yield from _functions(module.body, on_file)


def _functions(body: list[ast.stmt], around: set[str]) -> Iterator[tuple[str, set[str]]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            named = _NAMED.match(node.name)
            own = {f"{named[1].upper()}-{named[2]}"} if named else set()
            yield node.name, around | own | {clause for mark in node.decorator_list for clause in _marked(mark)}


def _marked(mark: ast.expr) -> Iterator[str]:
    """The ids in `pytest.mark.clause("…", …)`."""
    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.clause":
        for argument in mark.args:
            if not isinstance(argument, ast.Constant):
                raise TypeError(f"a clause is written out, not `{ast.unparse(argument)}`")
            yield str(argument.value)


def page() -> str:
    """The page docs/conformance.md."""
    table, tests = clauses(), proofs()
    revision = yaml.safe_load(TABLE.read_text())["revision"]
    lines = [
        "# The SPIFFE standard, clause by clause",
        "",
        "Drawn from `tests/conformance/clauses.yaml` and the tests by `tests/house/draw_conformance.py --write`; don't",
        f"edit. Followed is revision {revision}; the words are ours. What has no test yet says so.",
    ]
    for document in dict.fromkeys(clause.document for clause in table):
        lines += ["", f"## {document}", "", "| id | level | section | clause | proven by |", "|---|---|---|---|---|"]
        lines += [_row(clause, tests.get(clause.id, [])) for clause in table if clause.document == document]
    return "\n".join(lines) + "\n"


def _row(clause: Clause, tests: list[Proof]) -> str:
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(test.path, []).append(f"`{test.name}`")
    shown = "<br>".join(f"[{Path(path).name}](../{path}): {', '.join(names)}" for path, names in by_file.items())
    if not shown:
        shown = clause.elsewhere or ("**not yet**" if clause.demanded else "-")
    return f"| {clause.id} | {clause.level} | {clause.section} | {clause.text} | {shown} |"


def main() -> int:
    """Compare or write."""
    drawn = page()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(drawn)
    elif not PAGE.exists() or PAGE.read_text() != drawn:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run {Path(__file__).name} --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
