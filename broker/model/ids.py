"""Identifiers: sortable by time of birth, lower case, short enough for every target's name limit.

An id is 26 characters of Crockford's base 32: 48 bits of milliseconds, then 80 random bits, behind a letter that says
what it names (`t`ask, `l`ease, `d`ecision, `r`equest …). Ids are never capabilities (traps 18): whoever shows one still
has to prove the task it belongs to. What a target sees is not an id but a keyed hash of one (`engines/naming.py`).
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import NewType

from ca.errors import Malformed

TaskId = NewType("TaskId", str)
LeaseId = NewType("LeaseId", str)
DecisionId = NewType("DecisionId", str)
InstanceId = NewType("InstanceId", str)
"""128 random bits as 32 lower-case hexadecimal digits, made by the attestor."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_KNOWN = frozenset(_ALPHABET)
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_LENGTH = 27
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_task(now: datetime) -> TaskId:
    """A task id born at `now`."""
    return TaskId(_new("t", now))


def new_lease(now: datetime) -> LeaseId:
    """A lease id born at `now`."""
    return LeaseId(_new("l", now))


def new_decision(now: datetime) -> DecisionId:
    """A decision id born at `now`."""
    return DecisionId(_new("d", now))


def parse_task(text: str) -> TaskId:
    """Read a task id. Raises Malformed."""
    return TaskId(_parse("t", text, "task"))


def parse_lease(text: str) -> LeaseId:
    """Read a lease id. Raises Malformed."""
    return LeaseId(_parse("l", text, "lease"))


def parse_instance(text: str) -> InstanceId:
    """Read an instance id: 32 lower-case hexadecimal digits. Raises Malformed."""
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise Malformed("an instance id is 32 lower-case hexadecimal digits")
    return InstanceId(text)


def _new(letter: str, now: datetime) -> str:
    milliseconds = int((now - _EPOCH).total_seconds() * 1000) & (1 << 48) - 1
    number = milliseconds << 80 | secrets.randbits(80)
    return letter + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def _parse(letter: str, text: str, noun: str) -> str:
    if len(text) != _LENGTH or text[0] != letter or not set(text[1:]) <= _KNOWN:
        raise Malformed(f"not a {noun} id: expected `{letter}` and 26 characters of base 32")
    return text
