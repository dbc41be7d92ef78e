"""Every clause of the SPIFFE standard that must hold has a test named after it, and docs/conformance.md says which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from house import draw_conformance
from house.draw_conformance import LEVELS, PENDING, clauses, proofs, unproven

PROOFS = proofs()


def test_every_must_has_a_test() -> None:
    """But those whose subject is not built yet."""
    missing = [clause for clause in unproven(clauses(), PROOFS) if clause not in PENDING]
    assert not missing, f"no test names {missing}: mark one with @pytest.mark.clause, see CONTRIBUTING.md"


def test_tests_name_only_clauses_that_exist() -> None:
    """A slip of the pen would be a proof of nothing."""
    known = {clause.id for clause in clauses()}
    assert not {clause: tests for clause, tests in PROOFS.items() if clause not in known}
    assert known >= PENDING


def test_the_table_is_sound() -> None:
    """Ids in order and once, known levels, sentences."""
    table = clauses()
    numbers: dict[str, int] = {}
    for clause in table:
        letters, _, number = clause.id.partition("-")
        assert int(number) == numbers.get(letters, 0) + 1, clause.id
        numbers[letters] = int(number)
        assert clause.level in LEVELS, clause.id
        assert clause.text.endswith("."), clause.id
        assert "|" not in clause.text, clause.id


def test_the_page_is_what_the_script_draws() -> None:
    """Else: `.venv/bin/python tests/house/draw_conformance.py --write`."""
    assert draw_conformance.PAGE.read_text() == draw_conformance.page()


def test_names_and_marks_are_found(tmp_path: Path) -> None:
    """On a function, a class and a file; what is not a test proves nothing."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(
        'pytestmark = [pytest.mark.clause("TB-1")]\n'
        '@pytest.mark.clause("TB-2", "TB-3")\n'
        "def test_a(): ...\n"
        '@pytest.mark.clause("TB-9")\n'
        "def helper(): ...\n"
        '@pytest.mark.clause("TB-4")\n'
        "class TestB:\n"
        "    async def test_wl_9_c(self): ...\n"
    )
    found = {clause: [test.name for test in tests] for clause, tests in proofs(tmp_path).items()}
    assert found == {
        "TB-1": ["test_a", "test_wl_9_c"],
        "TB-2": ["test_a"],
        "TB-3": ["test_a"],
        "TB-4": ["test_wl_9_c"],
        "WL-9": ["test_wl_9_c"],
    }


def test_a_computed_clause_is_refused() -> None:
    """Nobody could find it by its id."""
    mark = ast.parse("pytest.mark.clause(f'TB-{n}')", mode="eval").body
    with pytest.raises(TypeError, match="written out"):
        list(draw_conformance._marked(mark))
