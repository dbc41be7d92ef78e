"""Several brokers over one store, for a client that may ask any of them.

Whoever answered last is asked first, so one that works is kept. The next is asked when nobody answered, if what was
asked can't have been done, or is the same when it is done twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Addresses:
    """Their addresses, in the order in which they are tried; one broker is a list of one."""

    urls: tuple[str, ...]
    _first: int = field(default=0, init=False)

    @property
    def several(self) -> bool:
        """Whether there is another one to go to."""
        return len(self.urls) > 1

    def in_turn(self) -> Iterator[str]:
        """Each once."""
        first = self._first
        for place in range(len(self.urls)):
            yield self.urls[(first + place) % len(self.urls)]

    def give_up(self, url: str) -> None:
        """It does not answer: the next one comes first from now on."""
        if self.urls[self._first] == url:
            self._first = (self._first + 1) % len(self.urls)

    def __str__(self) -> str:
        return ", ".join(self.urls)
