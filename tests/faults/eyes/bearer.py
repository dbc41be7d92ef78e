"""What is the same of everything that opens for whoever holds it: nobody can tell who does, and no session is kept."""

from __future__ import annotations


class BearerEyes:
    """Certificates, tokens, keys: each is shown with each use, and exists where it was handed to."""

    lasting = False
    lingers = False

    async def principals(self, prefix: str) -> dict[str, bool] | None:
        """Nobody can tell."""
        return None

    async def sessions(self, prefix: str) -> list[tuple[str, str]]:
        """None is to be cut."""
        return []
