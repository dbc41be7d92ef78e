"""For how long what others write has stayed the same, by this process's own clock.

Several servers write times into one store, and their clocks differ. So nobody compares such a time with his own: a
value counts as old when *he* has seen nothing else for so long. The time in which he did not look is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from datetime import datetime


class Unchanged:
    """Remembers each value and when it was first seen; lives as long as its process."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Hashable, datetime]] = {}

    def since(self, key: str, value: Hashable, now: datetime) -> datetime:
        """When `key` was first seen to be `value`, with nothing else after it; `now` when this is the first look."""
        found = self._seen.get(key)
        if found is None or found[0] != value:
            return self.note(key, value, now)
        return found[1]

    def note(self, key: str, value: Hashable, now: datetime) -> datetime:
        """This process wrote it itself, at `now`."""
        self._seen[key] = (value, now)
        return now

    def keep(self, keys: Iterable[str]) -> None:
        """Forget all others."""
        self._seen = {key: self._seen[key] for key in keys if key in self._seen}
