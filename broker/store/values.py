"""Between columns and values: times as microseconds, mappings as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ca.runtime.clock import instant, micros

_MICROSECOND = timedelta(microseconds=1)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def time_of(moment: datetime | None) -> int | None:
    """The column of a time that may be missing."""
    return None if moment is None else micros(moment)


def moment_of(column: int | None) -> datetime | None:
    """The inverse of `time_of`."""
    return None if column is None else instant(column)


def span_of(length: timedelta | None) -> int | None:
    """The column of a length of time that may be missing."""
    return None if length is None else length // _MICROSECOND


def length_of(column: int | None) -> timedelta | None:
    """The inverse of `span_of`."""
    return None if column is None else column * _MICROSECOND


def text_of(value: Mapping[str, Any]) -> str:
    """The column of a mapping; the same mapping gives the same text."""
    return _ENCODER.encode(value)


def mapping_of(column: str) -> dict[str, Any]:
    """The inverse of `text_of`. Raises ValueError: it is no text of a mapping."""
    value = json.loads(column)
    if not isinstance(value, dict):
        raise ValueError("no mapping")  # noqa: TRY004 - as of a text that is no JSON
    return value
