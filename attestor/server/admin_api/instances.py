"""What was attested, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from attestor.instance import parse_id
from attestor.server.admin_api.said import said
from attestor.server.store import instances as instance_store
from attestor.server.store.instances import Given, Instance
from attestor.wire import admin as wire
from ca.authority import Authority
from ca.errors import Malformed
from ca.runtime.clock import Clock
from ca.runtime.database import Database, Transaction
from ca.runtime.web import Call, Route

PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceList:
    """One for each server process."""

    authority: Authority
    database: Database
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (Route("GET", "/v1/instances", self.list_instances, summary="Instances", answer=wire.InstanceList),)

    async def list_instances(self, call: Call) -> wire.InstanceList:
        """`GET /v1/instances?after=…`."""
        unknown = call.query.keys() - {"after"}
        if unknown:
            raise Malformed("the only parameter of this list is `after`")
        after, now = call.query.get("after", ""), self.clock.now()
        if after:
            parse_id(after)

        async def unit(tx: Transaction) -> list[tuple[Instance, list[Given]]]:
            found = await instance_store.page(tx, after, PAGE)
            return [(one, list(await instance_store.given_to(tx, one.id))) for one in found]

        found = await self.database.read(unit)
        views = [_instance(one, given, len(await self.authority.issued_to(one.id, now))) for one, given in found]
        return wire.InstanceList(instances=views, next=views[-1].instance if len(views) == PAGE else None)


def _instance(found: Instance, given: list[Given], leaves: int) -> wire.InstanceView:
    return wire.InstanceView(
        instance=found.id,
        node=found.node,
        state=found.state,
        reason=found.reason,
        strength=found.strength,
        bound=found.bound,
        identities=[str(one.id) for one in given],
        began_at=said(found.began_at),
        leaves=leaves,
    )
