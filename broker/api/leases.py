"""/v1/leases: acknowledge, renew, give back, list."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from broker.api.door import PageQuery, asked, gate
from broker.model.ids import parse_lease, parse_task
from broker.service import leases
from broker.wire.leases import Acknowledge, LeasePage, LeaseTold, QuarantinedTold, QuarantinePage, RenewLease
from ca.runtime.clock import instant
from ca.runtime.web import Call, Route


class LeaseQuery(PageQuery):
    """Which leases: of one task, or (for operators) of all; only open or only overdue ones when asked for."""

    task: Annotated[str, StringConstraints(max_length=40)] | None = None
    open: bool = False
    overdue: bool = False


async def list_leases(call: Call) -> LeasePage:
    """Leases in the order of their birth."""
    query: LeaseQuery = call.parameters
    if query.task is not None:
        found = await leases.of_task(gate(call), asked(call), parse_task(query.task))
        now = asked(call).now
        wanted = [one for one in found if not (query.overdue and not one.is_overdue(now))]
        return LeasePage(items=[LeaseTold.of(lease) for lease in wanted if not (query.open and lease.is_closed)])
    after = parse_lease(query.after) if query.after is not None else None
    if query.overdue:
        found = await leases.overdue(gate(call), asked(call), after, query.limit)
    else:
        found = await leases.page(gate(call), asked(call), after, query.limit, open_only=query.open)
    following = found[-1].id if len(found) == query.limit else None
    return LeasePage(items=[LeaseTold.of(lease) for lease in found], next=following)


async def acknowledge(call: Call) -> LeaseTold:
    """The secret was received."""
    return LeaseTold.of(await leases.received(gate(call), asked(call), parse_lease(call.path("id"))))


async def renew(call: Call) -> LeaseTold:
    """Move the expiry ahead."""
    return LeaseTold.of(await leases.renew(gate(call), asked(call), parse_lease(call.path("id"))))


async def give_back(call: Call) -> LeaseTold:
    """Revoke; answers at once, `GET …/report` says when access was verified to have ended."""
    return LeaseTold.of(await leases.give_back(gate(call), asked(call), parse_lease(call.path("id"))))


async def list_quarantined(call: Call) -> QuarantinePage:
    """What can't be read."""
    found = await leases.quarantined(gate(call), asked(call))
    return QuarantinePage(
        items=[
            QuarantinedTold(table=one.table, id=one.key, reason=one.reason, since=instant(one.since)) for one in found
        ]
    )


ROUTES = (
    Route("GET", "/v1/quarantine", list_quarantined, summary="List rows that can't be read", answer=QuarantinePage),
    Route("GET", "/v1/leases", list_leases, summary="List leases", query=LeaseQuery, answer=LeasePage),
    Route("POST", "/v1/leases/{id}/ack", acknowledge, summary="Acknowledge", body=Acknowledge, answer=LeaseTold),
    Route("POST", "/v1/leases/{id}/renew", renew, summary="Renew", body=RenewLease, answer=LeaseTold),
    Route("DELETE", "/v1/leases/{id}", give_back, summary="Revoke", answer=LeaseTold),
)
