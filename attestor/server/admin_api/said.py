"""How times and lengths of time are said in JSON."""

from __future__ import annotations

from datetime import datetime, timedelta


def said(moment: datetime) -> str:
    """In UTC, whole seconds."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def seconds(length: timedelta) -> int:
    """Whole seconds."""
    return int(length.total_seconds())
