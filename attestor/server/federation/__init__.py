"""Foreign trust domains: whose bundles are held, and how they are fetched (SPIFFE_Federation.md).

A bundle stays with its trust domain from the first byte to the last, and nothing here is looked at when a member of
ours is judged.
"""

from __future__ import annotations

from attestor.server.federation.domains import Federation
from attestor.server.federation.endpoint import Endpoint, Profile
from attestor.server.federation.follower import Follower, followers

__all__ = ["Endpoint", "Federation", "Follower", "Profile", "followers"]
