"""Passwords, made by us."""

from __future__ import annotations

import math
import string

from broker.engines.passwords import new_password


def test_a_password_is_long_plain_and_of_every_class() -> None:
    """256 bits, safe in a URL, in SQL, in YAML and in a shell; never a number."""
    seen = {new_password() for _ in range(200)}
    assert len(seen) == 200
    for password in seen:
        assert (len(password) - 4) * math.log2(62) >= 256
        assert set(password) <= set(string.ascii_letters + string.digits)
        assert password[0] in string.ascii_letters
        assert (password[-3].islower(), password[-2].isupper(), password[-1].isdigit()) == (True, True, True)
