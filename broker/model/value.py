"""A value an operator gave: which target it is put at, and the name it rests under."""

from __future__ import annotations

import re

from ca.errors import Malformed

HOLDERS = frozenset({"static", "oauth"})
"""The kinds of target values are put at."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


def check_value_name(name: str) -> str:
    """What a value may be called. Raises Malformed."""
    if not _NAME.fullmatch(name):
        raise Malformed(f"`{name[:60]}` can't name a value: expected lower-case letters, digits and `-`")
    return name


def resting(target: str, name: str) -> str:
    """What the value `name` of a target is called where it rests."""
    return f"value/{target}/{name}"
