"""Identifiers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.model.ids import new_decision, new_lease, new_task, parse_instance, parse_lease, parse_task
from ca.errors import Malformed
from fakes.nouns import NOW


def test_ids_sort_by_birth_and_are_never_equal() -> None:
    """A later id is greater; two of one moment differ in 80 random bits."""
    born = [new_task(NOW + timedelta(milliseconds=number)) for number in range(50)]
    assert born == sorted(born)
    assert len({new_lease(NOW) for _ in range(1000)}) == 1000


def test_an_id_says_what_it_names() -> None:
    """A lease's id is no task's id."""
    task, lease = new_task(NOW), new_lease(NOW)
    assert parse_task(task) == task
    assert parse_lease(lease) == lease
    assert len(task) == 27
    assert new_decision(NOW).startswith("d")
    with pytest.raises(Malformed, match="not a task id"):
        parse_task(lease)


@pytest.mark.parametrize(
    "text", ["", "t", "t" + "0" * 25, "t" + "0" * 27, "t" + "u" * 26, "t" + "0" * 25 + "A", "t" + "٣" * 26]
)
def test_what_is_no_id(text: str) -> None:
    """Length, letter and alphabet are exact."""
    with pytest.raises(Malformed):
        parse_task(text)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, " " + "0" * 31])
def test_what_is_no_instance(text: str) -> None:
    """32 lower-case hexadecimal digits and nothing else."""
    with pytest.raises(Malformed):
        parse_instance(text)
