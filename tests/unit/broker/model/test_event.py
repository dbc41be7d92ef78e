"""Epochs."""

from __future__ import annotations

import pytest

from broker.model.event import Epoch
from ca.errors import Malformed


def test_a_cursor_there_and_back() -> None:
    """What is written can be read."""
    assert Epoch.parse(str(Epoch("abc123", 7))) == Epoch("abc123", 7)
    assert Epoch.parse("a" * 62 + ".7") == Epoch("a" * 62, 7)


@pytest.mark.parametrize("text", ["", "7", ".7", "abc.", "abc.-7", "abc.٣", "a b.7", "abc.7.8", "a" * 63 + ".7"])
def test_what_is_no_cursor(text: str) -> None:
    """An incarnation, a dot, a number."""
    with pytest.raises(Malformed):
        Epoch.parse(text)
