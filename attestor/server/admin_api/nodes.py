"""Join tokens, and the nodes that were admitted with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from attestor.selector import texts
from attestor.server.admin_api.said import said
from attestor.server.admission import Admission
from attestor.server.instances import Instances
from attestor.server.store import instances as instance_store
from attestor.server.store import nodes
from attestor.server.store.nodes import Node, NodeState
from attestor.wire import admin as wire
from ca.runtime.clock import Clock
from ca.runtime.database import Database, Transaction
from ca.runtime.web import Call, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """One for each server process."""

    admission: Admission
    instances: Instances
    database: Database
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        token, listed = wire.TokenAnswer, wire.NodeList
        return (
            Route("POST", "/v1/tokens", self.token, summary="Make a join token", body=wire.TokenRequest, answer=token),
            Route("GET", "/v1/nodes", self.nodes, summary="Nodes", answer=listed),
            Route("POST", "/v1/nodes/{id}/evict", self.evict, summary="Send a node away", answer=wire.NodeAnswer),
            Route("POST", "/v1/nodes/{id}/ban", self.ban, summary="Send a node away for good", answer=wire.NodeAnswer),
            Route("POST", "/v1/nodes/{id}/unban", self.unban, summary="Lift a node's ban", answer=wire.NodeAnswer),
        )

    async def token(self, call: Call) -> wire.TokenAnswer:
        """`POST /v1/tokens`."""
        asked: wire.TokenRequest = call.body
        issued = await self.admission.issue_token(asked.node, timedelta(seconds=asked.ttl_seconds), self.clock.now())
        return wire.TokenAnswer(
            id=issued.token.id, token=issued.token.reveal(), node=issued.node, expires_at=said(issued.expires_at)
        )

    async def nodes(self, call: Call) -> wire.NodeList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/nodes`."""

        async def unit(tx: Transaction) -> tuple[list[Node], dict[str, int]]:
            return list(await nodes.everything(tx)), dict(await instance_store.counts(tx))

        found, counts = await self.database.read(unit)
        now = self.clock.now()
        return wire.NodeList(
            nodes=[self._node(one, counts.get(one.id, 0), now) for one in found if not one.is_stand_in]
        )

    async def evict(self, call: Call) -> wire.NodeAnswer:
        """`POST /v1/nodes/{id}/evict`."""
        return await self._send_away(call.path("id"), NodeState.EVICTED)

    async def ban(self, call: Call) -> wire.NodeAnswer:
        """`POST /v1/nodes/{id}/ban`."""
        return await self._send_away(call.path("id"), NodeState.BANNED)

    async def unban(self, call: Call) -> wire.NodeAnswer:
        """`POST /v1/nodes/{id}/unban`."""
        name = call.path("id")
        return wire.NodeAnswer(id=name, state=await self.admission.lift_ban(name), ended_instances=0)

    def _node(self, node: Node, live: int, now: datetime) -> wire.NodeView:
        return wire.NodeView(
            id=node.id,
            spiffe_id=str(self.admission.spiffe_id(node.id)),
            state=node.state,
            method=node.method,
            selectors=texts(node.selectors),
            admitted_at=said(node.admitted_at),
            seen_at=said(node.seen_at),
            observed=node.state is NodeState.ADMITTED and not self.instances.is_silent(node, now),
            live_instances=live,
        )

    async def _send_away(self, name: str, state: NodeState) -> wire.NodeAnswer:
        now_is, ended = await self.admission.send_away(name, state, self.clock.now())
        return wire.NodeAnswer(id=name, state=now_is, ended_instances=ended)
