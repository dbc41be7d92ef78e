"""The identity rules in force, and what they would give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from attestor.errors import UnknownNode
from attestor.instance import Strength
from attestor.rules.evaluate import Facts
from attestor.rules.model import Rule
from attestor.selector import parse_all, texts
from attestor.server.admin_api.said import seconds
from attestor.server.dry_run import DryRun
from attestor.server.rule_hold import RuleHold
from attestor.server.rule_source import RuleSource
from attestor.server.store import nodes
from attestor.wire import admin as wire
from ca.authority import AuthoritySettings
from ca.runtime.database import Database
from ca.runtime.web import Call, Route

LONGEST_DRAFT = 8 * 1024 * 1024


class ReloadQuery(BaseModel):
    """`confirm=true`: take the files over, whoever loses an identity by them."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    confirm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One for each server process."""

    rules: RuleSource
    hold: RuleHold
    settings: AuthoritySettings
    database: Database

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        rules = wire.RuleList
        return (
            Route("GET", "/v1/rules", self.show_rules, summary="Rules in force", answer=rules),
            Route(
                "POST",
                "/v1/rules/reload",
                self.reload,
                summary="Read the rule files again; what would take too many identities is held",
                query=ReloadQuery,
                answer=rules,
            ),
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
        )

    async def show_rules(self, call: Call) -> wire.RuleList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/rules`."""
        return self._rules()

    async def reload(self, call: Call) -> wire.RuleList:
        """`POST /v1/rules/reload`."""
        asked: ReloadQuery = call.parameters
        await self.hold.again(confirm=asked.confirm)
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
                    x509_ttl_seconds=seconds(one.rule.x509_ttl or self.settings.x509_ttl),
                    jwt_ttl_seconds=seconds(one.rule.jwt_ttl or self.settings.jwt_ttl),
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

    def _rules(self) -> wire.RuleList:
        current = self.rules.current
        return wire.RuleList(
            version=current.version,
            rules=[self._rule(one) for one in current.rules],
            warnings=list(current.warnings),
            trouble=list(self.hold.trouble),
        )

    def _rule(self, rule: Rule) -> wire.RuleView:
        settings = self.settings
        return wire.RuleView(
            name=rule.name,
            nodes=["node:*"] if rule.nodes is None else rule.nodes.texts,
            when=rule.when.texts,
            spiffe_id=str(rule.template),
            hint=rule.hint,
            bind=rule.bind,
            children=rule.children,
            strength=rule.strength,
            x509_ttl_seconds=seconds(rule.x509_ttl or settings.x509_ttl),
            jwt_ttl_seconds=seconds(rule.jwt_ttl or settings.jwt_ttl),
            dns_names=list(rule.dns_names),
            audiences=list(rule.audiences),
            federates_with=list(rule.federates_with),
            source=rule.source,
        )
