"""What one operator proposed to give up unverified, until a second one confirms or the hour is over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ca.runtime.clock import instant, micros
from ca.runtime.database import Transaction

LIFE = timedelta(hours=1)
"""How long a proposal stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """`what` is `lease:<id>` or `target:<name>`."""

    what: str
    by: str
    at: datetime

    def stands(self, now: datetime) -> bool:
        """Whether it can still be confirmed."""
        return now < self.at + LIFE


async def put(tx: Transaction, proposal: Proposal) -> None:
    """Write it down, in the place of an earlier one."""
    await tx.execute(
        "INSERT INTO disownings (what, proposed_by, proposed_at) VALUES ($1, $2, $3) ON CONFLICT (what)"
        " DO UPDATE SET proposed_by = excluded.proposed_by, proposed_at = excluded.proposed_at",
        proposal.what,
        proposal.by,
        micros(proposal.at),
    )


async def find(tx: Transaction, what: str) -> Proposal | None:
    """The proposal, whether it stands or not."""
    row = await tx.fetchrow("SELECT * FROM disownings WHERE what = $1", what)
    return None if row is None else Proposal(what=what, by=row["proposed_by"], at=instant(row["proposed_at"]))


async def forget(tx: Transaction, what: str) -> None:
    """It was carried out."""
    await tx.execute("DELETE FROM disownings WHERE what = $1", what)
