"""The operators' verbs, as JSON on the server's Unix socket: the root of operator power (traps 10).

Whoever may open the socket may do all of it; who that is, is decided by its mode and by the uid of the caller.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from attestor.errors import UnknownNode
from attestor.instance import Strength, parse_id
from attestor.rules.evaluate import Facts
from attestor.rules.model import Rule
from attestor.selector import parse_all, texts
from attestor.server.admission import Admission
from attestor.server.dry_run import DryRun
from attestor.server.instances import Instances
from attestor.server.rule_source import RuleSource
from attestor.server.store import instances as instance_store
from attestor.server.store import nodes
from attestor.server.store.instances import Given, Instance
from attestor.server.store.nodes import Node, NodeState
from attestor.wire import admin as wire
from ca.authority import Authority
from ca.errors import Malformed
from ca.runtime.clock import Clock
from ca.runtime.database import Database, Transaction
from ca.runtime.web import Call, Route
from ca.store import everything

PAGE = 200
LONGEST_DRAFT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminApi:
    """One for each server process."""

    admission: Admission
    instances: Instances
    rules: RuleSource
    authority: Authority
    database: Database
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        token, listed, rules = wire.TokenAnswer, wire.NodeList, wire.RuleList
        return (
            Route("POST", "/v1/tokens", self.token, summary="Make a join token", body=wire.TokenRequest, answer=token),
            Route("GET", "/v1/nodes", self.nodes, summary="Nodes", answer=listed),
            Route("POST", "/v1/nodes/{id}/evict", self.evict, summary="Send a node away", answer=wire.NodeAnswer),
            Route("POST", "/v1/nodes/{id}/ban", self.ban, summary="Send a node away for good", answer=wire.NodeAnswer),
            Route("GET", "/v1/rules", self.show_rules, summary="Rules in force", answer=rules),
            Route("POST", "/v1/rules/reload", self.reload, summary="Read the rule files again", answer=rules),
            Route(
                "POST",
                "/v1/rules/explain",
                self.explain,
                summary="What a process would get, and why not more",
                body=wire.ExplainRequest,
                answer=wire.ExplainAnswer,
            ),
            Route(
                "POST",
                "/v1/rules/difference",
                self.difference,
                summary="Who would gain and lose identities by a changed rule file",
                body=wire.RuleDraft,
                answer=wire.RuleDifference,
                limit=LONGEST_DRAFT,
            ),
            Route("GET", "/v1/bundle", self.bundle, summary="The trust domain's bundle, in the SPIFFE form"),
            Route("GET", "/v1/authorities", self.authorities, summary="Authorities", answer=wire.AuthorityList),
            Route("GET", "/v1/instances", self.list_instances, summary="Instances", answer=wire.InstanceList),
        )

    async def token(self, call: Call) -> wire.TokenAnswer:
        """`POST /v1/tokens`."""
        asked: wire.TokenRequest = call.body
        issued = await self.admission.issue_token(asked.node, timedelta(seconds=asked.ttl_seconds), self.clock.now())
        return wire.TokenAnswer(
            id=issued.token.id, token=issued.token.reveal(), node=issued.node, expires_at=_said(issued.expires_at)
        )

    async def nodes(self, call: Call) -> wire.NodeList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/nodes`."""

        async def unit(tx: Transaction) -> tuple[list[Node], dict[str, int]]:
            return list(await nodes.everything(tx)), dict(await instance_store.counts(tx))

        found, counts = await self.database.read(unit)
        now = self.clock.now()
        return wire.NodeList(nodes=[self._node(one, counts.get(one.id, 0), now) for one in found])

    async def evict(self, call: Call) -> wire.NodeAnswer:
        """`POST /v1/nodes/{id}/evict`."""
        return await self._send_away(call.path("id"), NodeState.EVICTED)

    async def ban(self, call: Call) -> wire.NodeAnswer:
        """`POST /v1/nodes/{id}/ban`."""
        return await self._send_away(call.path("id"), NodeState.BANNED)

    async def show_rules(self, call: Call) -> wire.RuleList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/rules`."""
        return self._rules()

    async def reload(self, call: Call) -> wire.RuleList:  # noqa: ARG002 -- the signature of a handler
        """`POST /v1/rules/reload`."""
        self.rules.reload()
        return self._rules()

    async def explain(self, call: Call) -> wire.ExplainAnswer:
        """`POST /v1/rules/explain`."""
        asked: wire.ExplainRequest = call.body
        node = await self.database.read(lambda tx: nodes.get(tx, asked.node))
        if node is None:
            raise UnknownNode("no node of that name was ever admitted: `GET /v1/nodes` lists them")
        workload, strength = parse_all(asked.selectors), Strength.parse(asked.strength)
        facts = Facts(node=node.selectors, workload=workload, strength=strength)
        outcome = self.rules.evaluation.explain(facts)
        return wire.ExplainAnswer(
            node=node.id,
            node_selectors=texts(node.selectors),
            identities=[
                wire.IdentityView(
                    spiffe_id=str(one.id),
                    rule=one.rule.name,
                    hint=one.hint,
                    bind=one.rule.bind,
                    x509_ttl_seconds=_seconds(one.rule.x509_ttl or self.authority.settings.x509_ttl),
                    jwt_ttl_seconds=_seconds(one.rule.jwt_ttl or self.authority.settings.jwt_ttl),
                    dns_names=list(one.rule.dns_names),
                    audiences=list(one.rule.audiences),
                    federates_with=list(one.rule.federates_with),
                )
                for one in outcome.entitled
            ],
            unmatched=[wire.UnmatchedView(rule=one.rule, reason=one.reason) for one in outcome.missed],
        )

    async def difference(self, call: Call) -> wire.RuleDifference:
        """`POST /v1/rules/difference`."""
        asked: wire.RuleDraft = call.body
        found = await DryRun(self.database, self.rules).foresee(Path(asked.path), asked.text)
        return wire.RuleDifference(
            added=list(found.rules.added),
            removed=list(found.rules.removed),
            changed=list(found.rules.changed),
            warnings=list(found.warnings),
            version=found.version,
            looked_at=found.looked_at,
            affected=found.affected,
            losing=found.losing,
            gaining=found.gaining,
            instances=[
                wire.ShiftView(
                    instance=known.instance,
                    node=known.node,
                    gains=[str(one) for one in shift.gains],
                    loses=[str(one) for one in shift.loses],
                    changed=[str(one) for one in shift.changed],
                    default=None if shift.default is None else str(shift.default),
                )
                for known, shift in found.told
            ],
        )

    async def bundle(self, call: Call) -> dict[str, object]:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/bundle`."""
        bundle = self.authority.bundle(self.clock.now())
        return {
            "trust_domain": str(bundle.trust_domain),
            "root_key_hash": self.authority.root_key_hash(self.clock.now()),
            "bundle": json.loads(bundle.to_jwks()),
        }

    async def authorities(self, call: Call) -> wire.AuthorityList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/authorities`."""
        found = await self.database.read(everything)
        return wire.AuthorityList(
            authorities=[
                wire.AuthorityView(
                    key_id=one.key_id.hex(), kind=one.kind, state=one.state, not_after=_said(one.not_after)
                )
                for one in found
            ]
        )

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

    def _node(self, node: Node, live: int, now: datetime) -> wire.NodeView:
        return wire.NodeView(
            id=node.id,
            spiffe_id=str(self.admission.spiffe_id(node.id)),
            state=node.state,
            method=node.method,
            selectors=texts(node.selectors),
            admitted_at=_said(node.admitted_at),
            seen_at=_said(node.seen_at),
            observed=node.state is NodeState.ADMITTED and not self.instances.is_silent(node, now),
            live_instances=live,
        )

    async def _send_away(self, name: str, state: NodeState) -> wire.NodeAnswer:
        now_is, ended = await self.admission.send_away(name, state, self.clock.now())
        return wire.NodeAnswer(id=name, state=now_is, ended_instances=ended)

    def _rules(self) -> wire.RuleList:
        current = self.rules.current
        return wire.RuleList(
            version=current.version,
            rules=[self._rule(one) for one in current.rules],
            warnings=list(current.warnings),
            trouble=list(self.rules.trouble),
        )

    def _rule(self, rule: Rule) -> wire.RuleView:
        settings = self.authority.settings
        return wire.RuleView(
            name=rule.name,
            nodes=["node:*"] if rule.nodes is None else rule.nodes.texts,
            when=rule.when.texts,
            spiffe_id=str(rule.template),
            hint=rule.hint,
            bind=rule.bind,
            children=rule.children,
            strength=rule.strength,
            x509_ttl_seconds=_seconds(rule.x509_ttl or settings.x509_ttl),
            jwt_ttl_seconds=_seconds(rule.jwt_ttl or settings.jwt_ttl),
            dns_names=list(rule.dns_names),
            audiences=list(rule.audiences),
            federates_with=list(rule.federates_with),
            source=rule.source,
        )


def _instance(found: Instance, given: list[Given], leaves: int) -> wire.InstanceView:
    return wire.InstanceView(
        instance=found.id,
        node=found.node,
        state=found.state,
        reason=found.reason,
        strength=found.strength,
        bound=found.bound,
        identities=[str(one.id) for one in given],
        began_at=_said(found.began_at),
        leaves=leaves,
    )


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())


def _said(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
