"""Roots whose keys are kept elsewhere, as each server was told of them: the bundle shows those of all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One root's certificate, in DER, in the bundle since `published_at` because of `server`."""

    server: str
    certificate: bytes
    published_at: datetime

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hex."""
        return hashlib.sha256(self.certificate).hexdigest()


async def anchors(tx: Transaction) -> Sequence[Anchor]:
    """All of them, the oldest first."""
    rows = await tx.fetch(
        "SELECT server, certificate, published_at FROM ca_anchors ORDER BY published_at, fingerprint, server"
    )
    return [
        Anchor(server=row["server"], certificate=row["certificate"], published_at=instant(row["published_at"]))
        for row in rows
    ]


async def add_anchor(tx: Transaction, anchor: Anchor) -> None:
    """Show one more; one that is there keeps its day."""
    await tx.execute(
        "INSERT INTO ca_anchors (server, fingerprint, certificate, published_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (server, fingerprint) DO NOTHING",
        anchor.server,
        anchor.fingerprint,
        anchor.certificate,
        micros(anchor.published_at),
    )


async def remove_anchor(tx: Transaction, anchor: Anchor) -> None:
    """Show it no longer because of this server."""
    await tx.execute("DELETE FROM ca_anchors WHERE server = $1 AND fingerprint = $2", anchor.server, anchor.fingerprint)
