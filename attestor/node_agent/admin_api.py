"""The operators' socket of a node agent: what is held, why a process gets what it gets, and how it stands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attestor.instance import Strength, new_id
from attestor.node_agent.attest import Attestor
from attestor.node_agent.explained import explained
from attestor.node_agent.held import Held
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.peer import Findings, peer_by_number
from attestor.node_agent.upstream import Upstream
from attestor.wire.attestation import Attestation
from attestor.wire.held import ExplainProcess, HeldIdentity, HeldList, HeldView, NodeHealth, ProcessExplained
from ca.runtime.process import Part
from ca.runtime.web import Call, Route


class AdminApi:
    """The handlers; `routes` is what an application wants."""

    def __init__(self, holdings: Holdings, attestor: Attestor, upstream: Upstream, part: Part) -> None:
        self._holdings = holdings
        self._attestor = attestor
        self._upstream = upstream
        self._part = part

    def routes(self) -> Sequence[Route]:
        """The table."""
        return (
            Route("GET", "/v1/held", self._held, summary="What is held for which process", answer=HeldList),
            Route(
                "POST",
                "/v1/explain",
                self._explain,
                summary="What a process would get, and why",
                body=ExplainProcess,
                answer=ProcessExplained,
            ),
            Route("GET", "/v1/health", self._health, summary="How this node agent stands", answer=NodeHealth),
        )

    async def _held(self, _: Call) -> HeldList:
        held = sorted(self._holdings, key=lambda one: (one.name.pid, one.name.start_time))
        return HeldList(counter=self._holdings.live().counter, held=[_view(one) for one in held if one.counter])

    async def _explain(self, call: Call) -> ProcessExplained:
        request: ExplainProcess = call.body
        peer = peer_by_number(request.pid)
        try:
            findings = await self._attestor.attest(peer, for_people=True)
            known = next((one for one in self._holdings if one.name == peer.name and one.counter), None)
        finally:
            peer.close()
        asked = self._asked(findings, known)
        entitlement = await self._upstream.explain(asked)
        return explained(request.pid, findings, known, entitlement, holdings=self._holdings, attestor=self._attestor)

    def _asked(self, findings: Findings, known: Held | None) -> Attestation:
        return Attestation(
            instance=known.instance if known else new_id(),
            selectors=findings.selectors | self._holdings.inherited(findings),
            strength=findings.strength,
            counter=known.counter if known else 0,
            ancestors=self._holdings.lineage(findings),
        )

    async def _health(self, _: Call) -> NodeHealth:
        identity = self._upstream.identity
        ends = sorted(leaf.not_after for held in self._holdings for leaf in held.leaves.values())
        return NodeHealth(
            ready=self._part.awaited is None,
            waiting_for=self._part.awaited or "",
            spiffe_id=str(identity.svid.id) if identity else "",
            expires_at=_text(identity.svid.not_after) if identity else "",
            rules_version=self._upstream.rules_version.partition(" ")[0],
            processes=len(self._holdings),
            first_expires_at=_text(ends[0]) if ends else "",
            last_expires_at=_text(ends[-1]) if ends else "",
        )


def _view(held: Held) -> HeldView:
    strength: Strength | str = held.findings.strength if held.findings else ""
    return HeldView(
        instance=held.instance,
        pid=held.name.pid,
        uid=held.uid,
        strength=strength,
        calls=held.users,
        ended=held.barred,
        identities=[
            HeldIdentity(
                spiffe_id=str(one.id),
                rule=one.rule,
                hint=one.hint,
                expires_at=_text(held.leaves[one.id].not_after) if one.id in held.leaves else "",
            )
            for one in held.identities
        ],
    )


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
