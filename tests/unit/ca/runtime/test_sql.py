"""SQL text is read just far enough to find parameters and the ends of statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.runtime.sql import AT_ONCE, numbered, pieces, statements, tuples


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT $1", "SELECT ?1"),
        ("VALUES ($2, $1, $2)", "VALUES (?2, ?1, ?2)"),
        ("SELECT '$1', $1", "SELECT '$1', ?1"),
        ("SELECT 'it''s $2', $1", "SELECT 'it''s $2', ?1"),
        ('SELECT "a $3""b", $1', 'SELECT "a $3""b", ?1'),
        ("SELECT $1 -- $2\n, $2", "SELECT ?1 -- $2\n, ?2"),
        ("SELECT /* $9 ' \n */ $1", "SELECT /* $9 ' \n */ ?1"),
        (
            "SELECT " + ", ".join(f"${n}" for n in range(12, 0, -1)),
            "SELECT " + ", ".join(f"?{n}" for n in range(12, 0, -1)),
        ),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_parameters_are_numbered(sql: str, expected: str) -> None:
    """Outside of strings, names and comments."""
    assert numbered(sql) == expected


@pytest.mark.parametrize("sql", ["SELECT $2", "SELECT $0", "SELECT $1, $3", "SELECT 'open", 'SELECT "open', "/* open"])
def test_what_one_store_would_take_and_another_not_is_refused(sql: str) -> None:
    """A gap, a zero, something never closed."""
    with pytest.raises(RuntimeError):
        numbered(sql)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ;; -- nothing\n; /* at all */ ", []),
        ("A; B", ["A", "B"]),
        ("A ';' \"x;y\" -- ;\n; B;", ["A ';' \"x;y\" -- ;", "B"]),
        ("-- first\nA;\n\n/* ; */ B\n", ["-- first\nA", "/* ; */ B"]),
    ],
)
def test_a_script_is_split_at_semicolons(text: str, expected: list[str]) -> None:
    """Only at those that end a statement."""
    assert statements(text) == expected


@given(st.lists(st.text(alphabet="a$1;'\"-/* \n", max_size=12), max_size=5))
def test_quoted_text_never_changes(parts: list[str]) -> None:
    """Whatever stands in a string stays as it is, and ends no statement."""
    literals = ["'" + part.replace("'", "''") + "'" for part in parts]
    sql = "SELECT " + ", ".join([*literals, "$1"])
    assert numbered(sql) == sql[:-2] + "?1"
    assert statements(sql + ";" + sql) == [sql, sql]


@given(st.integers(0, 1234))
def test_pieces_hold_everything_once_in_few_sizes(number: int) -> None:
    """So that few texts have to be prepared."""
    found = list(pieces(range(number)))
    assert [one for piece in found for one in piece] == list(range(number))
    assert {len(piece) for piece in found} <= set(AT_ONCE)


def test_rows_of_a_statement_are_numbered_on() -> None:
    """As PostgreSQL counts."""
    assert tuples(2, 3) == "($1, $2, $3), ($4, $5, $6)"
