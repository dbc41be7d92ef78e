"""One turn of the loop for everybody else, in the middle of long work that waits for nothing."""

from __future__ import annotations

from collections.abc import Generator


class GiveWay:
    """`await GiveWay()` returns when whoever is ready has had a turn."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield
