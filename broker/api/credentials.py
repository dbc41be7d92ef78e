"""/v1/tasks/{id}/credentials: the one answer that holds a secret; /v1/roles: what may be asked for."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from broker.api.door import asked, gate, idempotency_key
from broker.model.ids import parse_task
from broker.model.lease import Lease
from broker.service import credentials, leases
from broker.service.proofs import Asked
from broker.wire.credentials import AskCredential, CredentialTold
from broker.wire.roles import RolePage, RoleTold
from ca.runtime.delivery import taken
from ca.runtime.web import STARTED, Call, Reply, Route


class AskQuery(BaseModel):
    """`ack=received`: reading the answer to its end acknowledges it; for clients without our library."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    ack: Literal["received"] | None = None


async def ask(call: Call) -> Reply | web.StreamResponse:
    """Obtain a secret. A retry with the same `Idempotency-Key` re-issues it until it is acknowledged."""
    wish: AskCredential = call.body
    query: AskQuery = call.parameters
    who = asked(call)
    made, decision = await credentials.ask(gate(call), who, parse_task(call.path("id")), wish, idempotency_key(call))
    told = CredentialTold.of(made.lease, made.issued.fields, made.issued.secret, decision=decision)
    if query.ack is None:
        return Reply(body=told, status=201)
    return await _read_to_its_end(call, who, made.lease, told)


async def _read_to_its_end(call: Call, who: Asked, lease: Lease, told: CredentialTold) -> web.StreamResponse:
    """Send the answer whole, then acknowledge; an answer that was not taken is revoked like one nobody acknowledged."""
    response = web.Response(text=told.model_dump_json(), content_type="application/json", status=201)
    await response.prepare(call.request)
    call.request[STARTED] = response
    transport, clock = call.request.transport, gate(call).world.clock
    await response.write_eof()
    if await taken(transport, clock, (lease.ack_by - who.now).total_seconds()):
        await leases.received_at_once(gate(call), who, lease)
    return response


async def roles(call: Call) -> RolePage:
    """Every role, with its guarantee."""
    offered = credentials.offered(gate(call))
    return RolePage(items=[RoleTold.of(role, guarantee) for role, guarantee in offered])


ROUTES = (
    Route(
        "POST",
        "/v1/tasks/{id}/credentials",
        ask,
        summary="Obtain a secret",
        body=AskCredential,
        query=AskQuery,
        answer=CredentialTold,
        status=201,
    ),
    Route("GET", "/v1/roles", roles, summary="List what may be asked for", answer=RolePage),
)
