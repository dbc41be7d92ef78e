"""A secret as a canary: every way it could be written, searched in places; and everything a process logs.

from fakes.canary import sightings, written  # noqa: F401 - a fixture
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

import pytest

from ca.runtime import log


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything the process logs, debug included."""
    root, names = logging.getLogger(), ("ca", "attestor", "broker")
    handlers, level, levels = list(root.handlers), root.level, [logging.getLogger(name).level for name in names]
    found = io.StringIO()
    log.setup("test", level="debug", stream=found)
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(old)


def spellings(secret: str) -> list[bytes]:
    """How it could stand somewhere."""
    raw = secret.encode()
    plain = [raw, raw[::-1], raw.hex().encode(), quote(secret).encode()]
    return plain + [base64.b64encode(raw[start:]).rstrip(b"=")[:-1] for start in range(3)]


def sightings(secrets: Sequence[str], places: Mapping[str, bytes]) -> list[str]:
    """Where any of them stands."""
    return [name for name, content in places.items() for one in secrets for way in spellings(one) if way in content]


def marks(secret: str) -> list[str]:
    """What gives a secret away: the whole of it, and of a private key in lines each full line of its own."""
    lines = [line for line in secret.splitlines() if len(line) >= 60 and "-" not in line]
    return [secret, *lines]


def raw_of(secret: str) -> bytes | None:
    """The bytes of a private key in PEM; None of anything else."""
    inside = "".join(line for line in secret.splitlines()[1:-1])
    try:
        return base64.b64decode(inside, validate=True) or None
    except binascii.Error:
        return None
