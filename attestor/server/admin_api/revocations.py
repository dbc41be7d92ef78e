"""Taking back what was given, and how others hear of it."""

from __future__ import annotations

from dataclasses import dataclass

from attestor.instance import parse_id
from attestor.server.admin_api.said import said
from attestor.server.revocation import Hit, Revocations
from attestor.wire import admin as wire
from attestor.wire.lists import RevocationListName, RevocationListNames
from ca.authority import Authority
from ca.revocation import Lists
from ca.runtime.clock import Clock
from ca.runtime.web import Call, Route

MOST_SHOWN = 1000
"""Of instances, and of leaves, in one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationVerbs:
    """One for each server process."""

    revocations: Revocations
    lists: Lists
    authority: Authority
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (
            Route(
                "POST",
                "/v1/revocations",
                self.revoke,
                summary="Take back a leaf, an instance, a node, or all below a path",
                body=wire.RevocationRequest,
                answer=wire.RevocationAnswer,
            ),
            Route("GET", "/v1/revocation-lists", self.show, summary="The newest lists", answer=RevocationListNames),
        )

    async def revoke(self, call: Call) -> wire.RevocationAnswer:
        """`POST /v1/revocations`."""
        asked: wire.RevocationRequest = call.body
        return _answer(await self._revoke(asked), dry_run=asked.dry_run)

    async def _revoke(self, asked: wire.RevocationRequest) -> Hit:
        verbs, now, dry_run = self.revocations, self.clock.now(), asked.dry_run
        if asked.leaf is not None:
            leaf = asked.leaf
            return await verbs.leaf(bytes.fromhex(leaf.issuer_key_id), int(leaf.serial, 16), now, dry_run=dry_run)
        if asked.instance is not None:
            return await verbs.instance(parse_id(asked.instance), now, dry_run=dry_run)
        if asked.node is not None:
            return await verbs.node(asked.node, now, dry_run=dry_run)
        return await verbs.under(self.authority.trust_domain.member(asked.under or ""), now, dry_run=dry_run)

    async def show(self, call: Call) -> RevocationListNames:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/revocation-lists`."""
        return RevocationListNames(
            lists=[
                RevocationListName.of(one.issuer_key_id, one.number, one.this_update, one.next_update, one.der)
                for one in self.lists.current
            ]
        )


def _answer(hit: Hit, *, dry_run: bool) -> wire.RevocationAnswer:
    return wire.RevocationAnswer(
        dry_run=dry_run,
        node=hit.node,
        instance_count=len(hit.instances),
        instances=list(hit.instances[:MOST_SHOWN]),
        leaf_count=len(hit.leaves),
        leaves=[
            wire.RevokedLeaf(
                issuer_key_id=one.issuer_key_id.hex(),
                serial=f"{one.serial:x}",
                spiffe_id=one.spiffe_id,
                instance=one.instance,
                not_after=said(one.not_after),
            )
            for one in hit.leaves[:MOST_SHOWN]
        ],
    )
