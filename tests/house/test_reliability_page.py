"""The figures of docs/reliability.md are those of the record, and the record is whole."""

from __future__ import annotations

import pytest

from faults.record import LONGEST, OK, RECORD, Kill, read
from house.draw_reliability import PAGE, PARTS, drawn, kind_of


def test_the_figures_are_the_records() -> None:
    """`python tests/house/draw_reliability.py --write` brings them up to date."""
    assert PAGE.read_text() == drawn(PAGE.read_text(), list(read()))


def test_the_page_has_every_part_once() -> None:
    """Of what can be drawn."""
    assert [PAGE.read_text().count(f"<!-- drawn: {part} -->") for part in PARTS] == [1] * len(PARTS)


def test_the_record_is_whole() -> None:
    """Each line is a kill, short, and written as it would be written again."""
    lines = RECORD.read_text().splitlines(keepends=True)
    kills = list(read())
    assert len(lines) == len(kills)
    assert max((len(line) for line in lines), default=0) <= LONGEST
    assert [kill.line() for kill in kills] == lines


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (OK, OK),
        ("the password of sj_a still opens", "leaked"),
        ("the role sj_a is there, and no lease stands for it", "leaked"),
        ("the task t was ended, and that is lost", "lost"),
        ("the lease of sj_a is active, and there is no such role", "lost"),
        ("the chain of b is broken at 2", "left half done"),
        ("a life broke: Traceback", "a life broke"),
    ],
)
def test_a_broken_promise_is_of_a_kind(verdict: str, kind: str) -> None:
    """Whatever is not known to be less is a leak."""
    assert kind_of(Kill(1, 2, "abc", "sqlite", "postgres", "a.b.after", verdict)) == kind
