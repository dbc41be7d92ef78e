"""/v1/decisions: may this act be done."""

from __future__ import annotations

from broker.api.door import asked, gate
from broker.service import decisions
from broker.wire.decisions import AskDecision, DecisionTold
from ca.runtime.web import Call, Route


async def decide(call: Call) -> DecisionTold:
    """Decide an act; the answer is advice."""
    return DecisionTold.of(await decisions.decide(gate(call), asked(call), call.body))


ROUTES = (
    Route(
        "POST", "/v1/decisions", decide, summary="Ask whether an act may be done", body=AskDecision, answer=DecisionTold
    ),
)
