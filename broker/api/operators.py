"""/v1/operators: a certificate bound to verbs. Only the operators' socket, and who was given the verb."""

from __future__ import annotations

from broker.api.door import asked, door, gate
from broker.model.caller import Operator
from broker.service import operators
from broker.wire.operators import AddOperator, OperatorPage, OperatorTold
from ca.runtime.web import Call, Route


async def add(call: Call) -> OperatorTold:
    """Bind a certificate to verbs."""
    ask: AddOperator = call.body
    return _told(
        await operators.add(gate(call), asked(call), ask.name, ask.certificate, ask.verbs, door(call).operators)
    )


async def list_operators(call: Call) -> OperatorPage:
    """Who may do what over the network."""
    found = await operators.listed(gate(call), asked(call))
    return OperatorPage(items=[_told(known.operator, known.fingerprint) for known in found])


async def remove(call: Call) -> None:
    """Take an operator's verbs away, also from its open connections."""
    await operators.remove(gate(call), asked(call), call.path("name"), door(call).operators)


def _told(operator: Operator, fingerprint: str | None = None) -> OperatorTold:
    return OperatorTold(name=operator.name, verbs=sorted(operator.verbs), fingerprint=fingerprint)


ROUTES = (
    Route("POST", "/v1/operators", add, summary="Add an operator", body=AddOperator, answer=OperatorTold, status=201),
    Route("GET", "/v1/operators", list_operators, summary="List operators", answer=OperatorPage),
    Route("DELETE", "/v1/operators/{name}", remove, summary="Remove an operator", status=204),
)
