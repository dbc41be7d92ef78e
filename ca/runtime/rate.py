"""How often somebody may ask: a bucket of tries for each, refilled in time.

Who asks is a key the caller can't choose, such as the address it connects from. The number of buckets is bounded: when
there are too many, those that are full again go first, and when none is, strangers share one.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable

from ca.errors import Exhausted
from ca.runtime.clock import Clock

MOST = 10_000


class Rate:
    """At most `burst` at once and `per_second` in the long run, for each key."""

    def __init__(self, clock: Clock, *, burst: int, per_second: float, most: int = MOST) -> None:
        self._clock, self._burst, self._per_second, self._most = clock, burst, per_second, most
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tries left, at

    def take(self, key: Hashable) -> None:
        """Count one try. Raises Exhausted."""
        now = self._clock.boot()
        if key not in self._buckets and len(self._buckets) >= self._most and not self._made_room(now):
            key = None
        left, at = self._buckets.pop(key, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) * self._per_second)
        if left < 1:
            self._buckets[key] = (left, now)
            raise Exhausted("too many requests: try again later")
        self._buckets[key] = (left - 1, now)

    def _made_room(self, now: float) -> bool:
        """Whether the bucket that was not used for longest is full again, and went."""
        oldest, (left, at) = next(iter(self._buckets.items()))
        if left + (now - at) * self._per_second < self._burst:
            return False
        del self._buckets[oldest]
        return True


def network_of(address: str | None) -> str | None:
    """Who a caller is, as far as an address tells: of IPv6 one host has at least a /64 to itself."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
