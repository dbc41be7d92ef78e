"""/v1/leases/{id}/disown and /v1/targets/{name}/disown: given up by two operators, and recorded as not verified."""

from __future__ import annotations

from broker.api.door import asked, gate
from broker.model.ids import parse_lease
from broker.service import disowning
from broker.service.disowning import Disowned
from broker.wire.disowning import Disown, DisownTold
from ca.runtime.web import Call, Route


async def lease(call: Call) -> DisownTold:
    """Give up one lease."""
    said: Disown = call.body
    found = await disowning.lease(gate(call), asked(call), parse_lease(call.path("id")), confirm=said.confirm)
    return _told(found)


async def target(call: Call) -> DisownTold:
    """Give up everything that is open at a target."""
    said: Disown = call.body
    return _told(await disowning.target(gate(call), asked(call), call.path("name"), confirm=said.confirm))


def _told(found: Disowned) -> DisownTold:
    return DisownTold(
        what=found.what, proposed_by=found.proposed_by, until=found.until, leases=found.leases, done=found.done
    )


ROUTES = (
    Route(
        "POST", "/v1/leases/{id}/disown", lease, summary="Give up a lease unverified", body=Disown, answer=DisownTold
    ),
    Route(
        "POST",
        "/v1/targets/{name}/disown",
        target,
        summary="Give up what is open at a target unverified",
        body=Disown,
        answer=DisownTold,
    ),
)
