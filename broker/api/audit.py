"""/v1/audit: receipts in their chains, for operators; of one task, for whoever proves it."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from broker.api.door import PageQuery, asked, gate
from broker.model.ids import parse_task
from broker.service import audit
from broker.wire.audit import EntryPage, EntryTold, HeadPage, HeadTold
from ca.errors import Malformed
from ca.runtime.web import Call, Route


class AuditQuery(PageQuery):
    """Entries of one task, or of every chain after `<writer>:<number>`."""

    task: Annotated[str, StringConstraints(max_length=40)] | None = None


async def entries(call: Call) -> EntryPage:
    """Entries, writer by writer."""
    query: AuditQuery = call.parameters
    if query.task is not None:
        found = await audit.of_task(gate(call), asked(call), parse_task(query.task))
        return EntryPage(items=[EntryTold.of(entry) for entry in found])
    found = await audit.page(gate(call), asked(call), _cursor(query.after), query.limit)
    following = f"{found[-1].writer}:{found[-1].number}" if len(found) == query.limit else None
    return EntryPage(items=[EntryTold.of(entry) for entry in found], next=following)


async def heads(call: Call) -> HeadPage:
    """Where each writer's chain ends; kept elsewhere, it shows a tail that was cut."""
    found = await audit.heads(gate(call), asked(call))
    return HeadPage(
        items=[
            HeadTold(writer=head.writer, number=head.number, hash=head.hash, after=cut.number, after_hash=cut.hash)
            for head, cut in found
        ]
    )


def _cursor(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    writer, _, number = text.rpartition(":")
    if not writer or not number.isascii() or not number.isdigit() or len(number) > 15:
        raise Malformed("not a cursor of the audit: expected `<writer>:<number>`")
    return writer, int(number)


ROUTES = (
    Route("GET", "/v1/audit", entries, summary="Read the audit", query=AuditQuery, answer=EntryPage),
    Route("GET", "/v1/audit/heads", heads, summary="Read where each chain ends", answer=HeadPage),
)
