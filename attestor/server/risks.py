"""What an operator should look at: it was refused, and nobody honest does it.

Each is told three times: in the log, in a count, and in the store, where it stays. None holds a secret.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ca.errors import Problem
from ca.runtime import log
from ca.runtime.clock import instant, micros
from ca.runtime.database import Database, Transaction
from ca.runtime.metrics import Metrics

KEPT = timedelta(days=30)
MOST_KEPT = 10_000
_log = log.get(__name__)


class Risk(StrEnum):
    """The kinds there are."""

    SECOND_KEY = "second-key"
    """A token was shown with another key, and nothing was started anew."""
    TOKEN_TWICE = "token-twice"  # noqa: S105 - the name of a risk
    """A join token came that was used before: two machines hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskEvent:
    """One line."""

    kind: Risk
    subject: str
    detail: str
    at: datetime


class Risks:
    """One for each server process."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database, self._metrics = database, metrics

    async def note(self, kind: Risk, subject: str, detail: str, now: datetime) -> None:
        """Tell of one. It never raises: what it tells of was refused already, and a full disk must not change that."""
        _log.error("risk", kind=str(kind), subject=subject, detail=detail)
        self._metrics.count("sojourn_risk_events_total", kind=str(kind))

        async def unit(tx: Transaction) -> None:
            await tx.execute("DELETE FROM risk_events WHERE at < $1", micros(now - KEPT))
            row = await tx.fetchrow("SELECT COUNT(*) AS number FROM risk_events")
            if row is not None and row["number"] < MOST_KEPT:  # whoever causes them must not fill the store
                await tx.execute(
                    "INSERT INTO risk_events (id, kind, subject, detail, at) VALUES ($1, $2, $3, $4, $5)",
                    secrets.token_hex(16),
                    str(kind),
                    subject,
                    detail,
                    micros(now),
                )

        try:
            await self._database.write(unit)
        except Problem as problem:
            _log.error("a risk could not be kept", error=problem)

    async def newest(self, limit: int = 100) -> Sequence[RiskEvent]:
        """The newest first."""

        async def unit(tx: Transaction) -> list[RiskEvent]:
            rows = await tx.fetch(
                "SELECT kind, subject, detail, at FROM risk_events ORDER BY at DESC, id LIMIT $1", limit
            )
            return [
                RiskEvent(kind=Risk(row["kind"]), subject=row["subject"], detail=row["detail"], at=instant(row["at"]))
                for row in rows
            ]

        return await self._database.read(unit)
