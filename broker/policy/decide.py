"""May this agent do this now, for this task? One pure function of what is known; whatever goes wrong denies.

An act is permitted when all of it holds: every task of the chain lives, the process is seen to live, the act lies in
the meet of every scope above it (law 6), and Cedar permits it with no error. What is judged before a policy is asked
answers under a reserved id (`BUILT_IN`), which no policy may take.

An agent may claim a higher sensitivity than the broker knows of; then the act must be permitted at both. So a claim can
only ever make an answer stricter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import cedarpy

from broker.model.act import Act, Action
from broker.model.caller import Workload
from broker.model.decision import Decision, Effect
from broker.model.ids import new_decision
from broker.model.observed import Observation
from broker.model.scope import Sensitivity
from broker.model.task import USABLE, Task, is_chain
from broker.policy.facts import Facts
from broker.policy.nearest import Question, question, search, told
from broker.policy.request import Incomplete, build
from broker.policy.slices import PolicySet

__all__ = ["BUILT_IN", "Facts", "decide"]

TASK, OBSERVED, FACTS, SCOPE, EVALUATION = "task", "observed", "facts", "scope", "evaluation"
BUILT_IN = frozenset({TASK, OBSERVED, FACTS, SCOPE, EVALUATION})
"""Ids under which the broker itself denies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An answer before it is a decision."""

    permits: bool
    policies: tuple[str, ...]
    reason: str


def decide(  # noqa: PLR0917 - who, for what, what, knowing what, when: the order in which it is said
    policies: PolicySet, caller: Workload, chain: Sequence[Task], act: Act, facts: Facts, now: datetime
) -> Decision:
    """Decide one act of the last task of `chain` (root first); to open a task, `chain` is what stands above it.

    Never raises for what an agent may have sent: what can't be judged is denied.
    """
    barred = _barred(chain, act, facts, now)
    near: tuple[str, ...] = ()
    if barred is not None:
        verdict = barred
    else:
        asked = question(chain, act, facts)
        verdict = judge(policies, caller, asked)
        if not verdict.permits and not {FACTS, EVALUATION} & set(verdict.policies):
            near = told(search(policies, asked, lambda other: judge(policies, caller, other).permits))
    return Decision(
        id=new_decision(now),
        effect=Effect.PERMIT if verdict.permits else Effect.DENY,
        policies=verdict.policies,
        reason=verdict.reason,
        policy_version=policies.version,
        decided_at=now,
        nearest=near,
    )


def judge(policies: PolicySet, caller: Workload, asked: Question) -> Verdict:
    """What scope and policies say, the chain being alive."""
    outside = _outside(asked)
    if outside is not None:
        return _deny(SCOPE, outside)
    known, effective = _sensitivities(asked)
    verdict = _evaluate(policies, caller, asked, effective)
    if verdict.permits and known < effective:
        other = _evaluate(policies, caller, asked, known)
        verdict = verdict if other.permits else other
    return verdict


def _barred(chain: Sequence[Task], act: Act, facts: Facts, now: datetime) -> Verdict | None:
    """What denies whatever the policies say: a task that can't be given anything, a process nobody sees."""
    if chain and not is_chain(chain):
        return _deny(FACTS, "incomplete facts: the chain of tasks is not whole")
    for task in chain:
        trouble = _trouble(task, now)
        if trouble is not None:
            whose = "the task" if task is chain[-1] else f"the task `{task.id}` above it"
            return _deny(TASK, f"{whose} {trouble}")
    if chain and act.action is not Action.RENEW and chain[-1].state not in USABLE:
        return _deny(TASK, f"the task is `{chain[-1].state}`, only an active task is given anything")
    unseen = facts.observation in {Observation.UNOBSERVED, Observation.ENDED}
    bound = bool(chain) and chain[-1].instance is not None and act.action is not Action.OPEN
    if unseen or (bound and facts.observation is not Observation.LIVE):
        return _deny(OBSERVED, f"the process is `{facts.observation}`, expected one that is seen to live")
    return None


def _trouble(task: Task, now: datetime) -> str | None:
    if not task.is_live:
        return f"has ended: it is `{task.state}`"
    if task.is_past_deadline(now):
        return "is past its deadline"
    return "has fallen silent" if task.is_silent(now) else None


def _outside(asked: Question) -> str | None:
    """Why the act lies outside the scope, or None."""
    act, scope = asked.act, asked.scope
    if act.action is Action.OPEN:
        requested = asked.facts.requested
        inside = requested is None or not asked.chain or requested.within(scope)
        return None if inside else "what is asked for is outside the scope of the task above"
    if act.action is Action.USE and not scope.allows_tool(act.resource):
        return f"the tool `{_short(act.resource)}` is outside the task's scope"
    if act.action is not Action.USE and not scope.allows_role(act.resource):
        return f"the role `{_short(act.resource)}` is outside the task's scope"
    if act.tool is not None and not scope.allows_tool(act.tool):
        return f"the tool `{_short(act.tool)}` is outside the task's scope"
    if act.destination is not None and not scope.allows_destination(act.destination):
        return f"the destination `{_short(act.destination)}` is outside the task's scope"
    level = _sensitivities(asked)[1]
    if level > scope.sensitivity:
        return f"`{_short(act.resource)}` is `{level}`, outside the task's scope, which ends at `{scope.sensitivity}`"
    return None


def _sensitivities(asked: Question) -> tuple[Sensitivity, Sensitivity]:
    """What the broker knows, and the higher of it and what is claimed."""
    act, facts = asked.act, asked.facts
    if act.action is Action.OPEN:
        level = facts.requested.sensitivity if facts.requested is not None else Sensitivity.RESTRICTED
        return level, level
    known = max(act.sensitivity, facts.role.sensitivity) if facts.role is not None else act.sensitivity
    return known, max(known, act.claimed_sensitivity or Sensitivity.PUBLIC)


def _evaluate(policies: PolicySet, caller: Workload, asked: Question, sensitivity: Sensitivity) -> Verdict:
    """Ask Cedar once. No decision, or any error beside one, denies: Cedar alone would pass over a forbid that fails."""
    try:
        request = build(caller, asked.chain, asked.act, asked.facts, sensitivity)
        entities = policies.entities(request.place.entities)
    except Incomplete as error:
        return _deny(FACTS, f"incomplete facts: {error}")
    except ValueError:
        return _deny(FACTS, "incomplete facts: what is known does not fit the schema")
    candidates = policies.sliced(request.action, request.place.resource, request.place.above)
    result = cedarpy.is_authorized(request.to_cedar(), candidates, entities, policies.schema)
    if result.decision is cedarpy.Decision.NoDecision:
        return _deny(FACTS, "incomplete facts: what was sent does not fit the schema")
    if result.diagnostics.errors:
        failed = [name for name in policies.policies if any(f"`{name}`" in one for one in result.diagnostics.errors)]
        named = f": `{'`, `'.join(sorted(failed))}`" if failed else ""
        return _deny(EVALUATION, f"a policy could not be evaluated, so nothing is permitted{named}")
    return _told(policies, asked.act, allowed=result.allowed, names=tuple(sorted(result.diagnostics.reasons)))


def _told(policies: PolicySet, act: Act, *, allowed: bool, names: tuple[str, ...]) -> Verdict:
    if not names:
        return Verdict(
            permits=False, policies=(), reason=f"no policy permits `{act.action}` of `{_short(act.resource)}`"
        )
    reasons = dict.fromkeys(policies.policies[name].reason for name in names)
    return Verdict(permits=allowed, policies=names, reason="; ".join(reasons))


def _deny(name: str, reason: str) -> Verdict:
    return Verdict(permits=False, policies=(name,), reason=reason)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
