"""Passwords, made by us."""

from __future__ import annotations

import math
import string
from collections import Counter

from broker.engines.passwords import new_password


def test_every_character_comes_as_often_as_any_other() -> None:
    """A byte has 256 values and there are 62 characters: the rest is thrown away, not folded in."""
    seen = Counter("".join(new_password()[1:-3] for _ in range(3000)))
    mean = seen.total() / 62
    assert len(seen) == 62
    assert sum((count - mean) ** 2 / mean for count in seen.values()) < 130  # chi squared, 61 degrees: 1 in a million


def test_a_password_is_long_plain_and_of_every_class() -> None:
    """256 bits, safe in a URL, in SQL, in YAML and in a shell; never a number."""
    seen = {new_password() for _ in range(200)}
    assert len(seen) == 200
    for password in seen:
        assert (len(password) - 4) * math.log2(62) >= 256
        assert set(password) <= set(string.ascii_letters + string.digits)
        assert password[0] in string.ascii_letters
        assert (password[-3].islower(), password[-2].isupper(), password[-1].isdigit()) == (True, True, True)
