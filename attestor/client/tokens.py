"""This process's own identity as JWT-SVIDs, one call each: for whoever needs one now and then.

Nothing is kept, so a token of a key that is no longer believed is never given; the node agent keeps its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from attestor.client.workload_api import WorkloadApiClient
from ca.runtime.secret import Secret
from ca.spiffe.endpoint import Endpoint
from ca.spiffe.id import SpiffeId


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """Tokens of the default identity of this process, or of `spiffe_id`."""

    api: WorkloadApiClient
    spiffe_id: SpiffeId | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, address: Endpoint | str | None = None, spiffe_id: SpiffeId | None = None
    ) -> AsyncIterator[OwnTokens]:
        """Over a connection of its own, made when it is first used. Raises Malformed: `address` is none."""
        async with WorkloadApiClient(address) as api:
            yield cls(api, spiffe_id)

    async def token(self, audience: str) -> Secret:
        """A JWT-SVID for one audience. Raises NoIdentity, Unreachable, Unsupported, Malformed."""
        return Secret((await self.api.fetch_jwt([audience], self.spiffe_id))[0].token)
