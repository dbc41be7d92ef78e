"""Tests of a policy set, written beside it in YAML and judged by the same `decide` that runs in a broker.

    policies: [example.cedar]
    trust_domain: example.org
    roles:
      orders-db/readonly: { engine: postgres, sensitivity: internal }
    cases:
      - name: billing reads orders
        agent: spiffe://example.org/agents/billing
        act: { action: obtain, resource: orders-db/readonly }
        expect: permit
        by: [billing.orders]

What a case does not say is what gives least: no strength, no confidence, an empty scope. `config/policies/tests.yaml`
is a whole example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from broker.model.act import Act, Action
from broker.model.caller import Workload
from broker.model.decision import Decision, Effect
from broker.model.ids import InstanceId, new_task
from broker.model.observed import Observation
from broker.model.role import Role
from broker.model.scope import Pattern, Scope, Sensitivity
from broker.model.task import Task, TaskState
from broker.policy.decide import decide
from broker.policy.facts import Facts
from broker.policy.slices import PolicySet
from broker.policy.source import PolicySource
from ca.errors import Malformed
from ca.runtime.settings import Duration, Settings, load, parsed_by
from ca.spiffe.id import SpiffeId, TrustDomain

Level = Annotated[Sensitivity, parsed_by(Sensitivity.parse)]
Names = tuple[Annotated[Pattern, parsed_by(Pattern.parse)], ...]
Identity = Annotated[SpiffeId, parsed_by(SpiffeId.parse)]

_AN_HOUR = timedelta(hours=1)
_INSTANCE = InstanceId("0" * 32)


class RoleSaid(Settings):
    """A role as the policies see it."""

    engine: str
    sensitivity: Level = Sensitivity.RESTRICTED


class ScopeSaid(Settings):
    """A task's scope, or the one asked for."""

    roles: Names = ()
    tools: Names = ()
    destinations: Names = ()
    sensitivity: Level = Sensitivity.PUBLIC

    def to_scope(self) -> Scope:
        """The value."""
        return Scope(
            roles=frozenset(self.roles),
            tools=frozenset(self.tools),
            destinations=frozenset(self.destinations),
            sensitivity=self.sensitivity,
        )


class ActSaid(Settings):
    """What is asked; `resource` is the role or the tool, and nothing when a task is opened."""

    action: Action
    resource: str = ""
    sensitivity: Level | None = None
    confidence: Annotated[int, Field(ge=0, le=100)] = 0
    tool: str | None = None
    destination: str | None = None


class Case(Settings):
    """One question and the answer it must have; `by` are the policies that must decide, `nearest` what must be told."""

    name: str
    agent: Identity
    strength: str = "none"
    purpose: str = "a case of a policy test"
    scope: ScopeSaid = ScopeSaid()
    lasts: Duration | None = None
    act: ActSaid
    expect: Effect
    by: tuple[str, ...] | None = None
    nearest: tuple[str, ...] | None = None


class Cases(Settings):
    """A file of cases; `policies` are files and folders beside it."""

    policies: tuple[str, ...]
    trust_domain: Annotated[TrustDomain, parsed_by(TrustDomain.parse)]
    roles: dict[str, RoleSaid] = Field(default_factory=dict)
    cases: tuple[Case, ...]

    @model_validator(mode="after")
    def _whole(self) -> Cases:
        names = [case.name for case in self.cases]
        if len(set(names)) != len(names):
            raise ValueError("two cases have one name")
        for name in self.roles:
            target, slash, role = name.partition("/")
            if not (target and slash and role):
                raise ValueError(f"`{name}` is no role, expected `target/role`")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one case; `trouble` is empty when it held."""

    case: str
    decision: Decision
    trouble: str

    @property
    def holds(self) -> bool:
        """Whether the answer was the one expected."""
        return not self.trouble


def run_file(path: Path, now: datetime) -> tuple[Outcome, ...]:
    """Run every case of the file at `path`. Raises Malformed: the cases or their policies can't be read."""
    cases = load(path, Cases)
    policies = PolicySource.of(*(path.parent / name for name in cases.policies)).load()
    return tuple(run(cases, policies, now))


def run(cases: Cases, policies: PolicySet, now: datetime) -> Iterator[Outcome]:
    """Put every case to `policies`."""
    roles = {name: _role(name, said) for name, said in cases.roles.items()}
    for case in cases.cases:
        decision = _decide(case, cases.trust_domain, roles, policies, now)
        yield Outcome(case=case.name, decision=decision, trouble=_trouble(case, decision))


def _decide(case: Case, domain: TrustDomain, roles: Mapping[str, Role], policies: PolicySet, now: datetime) -> Decision:
    opens = case.act.action is Action.OPEN
    if case.act.action in {Action.OBTAIN, Action.RENEW} and case.act.resource not in roles:
        raise Malformed(f"the case `{case.name}` names the role `{case.act.resource}`, which is not among `roles`")
    role = roles.get(case.act.resource)
    facts = Facts(
        strength=case.strength,
        observation=Observation.LIVE,
        trust_domain=domain,
        role=role,
        requested=case.scope.to_scope() if opens else None,
        lasts=case.lasts,
        purpose=case.purpose,
        roles=tuple(roles.values()),
    )
    caller = Workload(id=case.agent, instance=_INSTANCE, not_after=now + _AN_HOUR)
    return decide(policies, caller, () if opens else (_task(case, now),), _act(case, role), facts, now)


def _act(case: Case, role: Role | None) -> Act:
    known = role.sensitivity if role is not None else Sensitivity.RESTRICTED
    return Act(
        action=case.act.action,
        resource=case.act.resource or str(case.agent),
        sensitivity=known,
        tool=case.act.tool,
        destination=case.act.destination,
        claimed_sensitivity=case.act.sensitivity,
        confidence=case.act.confidence,
    )


def _task(case: Case, now: datetime) -> Task:
    name = new_task(now)
    return Task(
        id=name,
        root=name,
        parent=None,
        state=TaskState.ACTIVE,
        version=1,
        owner=case.agent,
        instance=_INSTANCE,
        purpose=case.purpose,
        scope=case.scope.to_scope(),
        opened_at=now,
        deadline=None if case.lasts is None else now + case.lasts,
        heartbeat=None,
        heard_at=now,
    )


def _role(name: str, said: RoleSaid) -> Role:
    target, _, role = name.partition("/")
    return Role(
        target=target,
        name=role,
        engine=said.engine,
        sensitivity=said.sensitivity,
        ttl=_AN_HOUR,
        longest=_AN_HOUR,
        ack_within=_AN_HOUR,
    )


def _trouble(case: Case, decision: Decision) -> str:
    if decision.effect is not case.expect:
        by = f" by `{'`, `'.join(decision.policies)}`" if decision.policies else ""
        return f"expected `{case.expect}`, was `{decision.effect}`{by}: {decision.reason}"
    if case.by is not None and set(case.by) != set(decision.policies):
        return f"expected to be decided by `{', '.join(case.by)}`, was by `{', '.join(decision.policies)}`"
    if case.nearest is not None and not set(case.nearest) <= set(decision.nearest):
        return f"expected the nearest changes `{'`, `'.join(case.nearest)}`, were `{'`, `'.join(decision.nearest)}`"
    return ""
