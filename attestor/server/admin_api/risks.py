"""What was refused and nobody honest does."""

from __future__ import annotations

from dataclasses import dataclass

from attestor.server.admin_api.said import said
from attestor.server.risks import Risks
from attestor.wire import admin as wire
from ca.runtime.web import Call, Route


@dataclass(frozen=True, slots=True)
class RiskList:
    """One for each server process."""

    risks: Risks

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (Route("GET", "/v1/risks", self.newest, summary="The newest risk events", answer=wire.RiskList),)

    async def newest(self, call: Call) -> wire.RiskList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/risks`."""
        return wire.RiskList(
            risks=[
                wire.RiskView(kind=one.kind, subject=one.subject, detail=one.detail, at=said(one.at))
                for one in await self.risks.newest()
            ]
        )
