"""What has been shown and must not be shown again: a set that forgets, bounded by time and by number.

Nothing is forgotten before it has expired, so nothing can be pushed out to be used again. When there is no room the
*new* one is refused: first to whoever takes up more than a share, so that no sender can keep the others out.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from datetime import UTC, datetime

from ca.errors import Exhausted
from ca.spiffe.errors import Untrusted

MOST = 100_000
SHARE = 8
"""One sender may fill an eighth."""


class Replayed(Untrusted):
    """It was accepted once, and once is all it is good for."""

    code = "replayed"


class ReplayCache:
    """Holds up to `most` things, each by its hash until its expiry. Not for several threads at once."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: set[bytes] = set()
        self._ends: list[tuple[datetime, bytes, bytes]] = []
        self._of: Counter[bytes] = Counter()
        self._forgotten_until = datetime(1970, 1, 1, tzinfo=UTC)

    def admit(self, sender: str, thing: str, until: datetime, now: datetime) -> None:
        """Remember that `sender` showed `thing`, which is good until `until`.

        Raises:
            Replayed: it is remembered, or may have been: a clock that was set back makes what is forgotten good again.
            Exhausted: there is no room, or the sender's share of it is used up.
        """
        self._forget(now)
        whose, what = _digest(sender), _digest(f"{sender} {thing}")
        if what in self._held or until <= self._forgotten_until:
            raise Replayed(f"a proof of `{sender}` was shown a second time")
        if self._of[whose] >= max(1, self._most // SHARE):
            raise Exhausted(f"`{sender}` has shown too many proofs that have not expired yet")
        if len(self._held) >= self._most:
            raise Exhausted("too many proofs have been shown that have not expired yet")
        self._held.add(what)
        self._of[whose] += 1
        heapq.heappush(self._ends, (until, what, whose))

    def __len__(self) -> int:
        return len(self._held)

    def _forget(self, now: datetime) -> None:
        while self._ends and self._ends[0][0] <= now:
            until, what, whose = heapq.heappop(self._ends)
            self._held.discard(what)
            self._of[whose] -= 1
            if not self._of[whose]:
                del self._of[whose]
            self._forgotten_until = max(self._forgotten_until, until)


def _digest(text: str) -> bytes:
    """Of one size, whatever strangers send."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
