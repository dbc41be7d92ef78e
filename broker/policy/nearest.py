"""The smallest change that would permit: one fact at a time, values from the policies, the task and the schema.

Every change that is told was tried: the same judgement that denied was asked again with that one fact changed, and it
permitted. Per fact the least change that suffices is told; where none does, that is told too. The search asks at most
`MOST` times, so a denial has a price that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any

from attestor.instance import Strength
from broker.model.act import Act, Action
from broker.model.scope import EVERYTHING, Pattern, Scope, Sensitivity
from broker.model.task import Task, effective_scope
from broker.policy.facts import Facts
from broker.policy.request import strength_rank
from broker.policy.slices import PolicySet

MOST = 64
"""How many judgements one search may ask for."""

NONE = "no single change would permit it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is judged: the act, what is known, and what the chain of tasks may reach."""

    act: Act
    facts: Facts
    chain: Sequence[Task]
    scope: Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One fact made otherwise: its name, what to tell, and the question as it then is."""

    fact: str
    words: str
    question: Question


Judge = Callable[[Question], bool]


def question(chain: Sequence[Task], act: Act, facts: Facts) -> Question:
    """The question a decision answers; without a task above, nothing bounds what may be asked for."""
    return Question(act=act, facts=facts, chain=chain, scope=effective_scope(chain) if chain else EVERYTHING)


def search(policies: PolicySet, asked: Question, judge: Judge) -> tuple[Change, ...]:
    """The least sufficient change of each fact, in the order in which they are tried; empty when there is none."""
    found: dict[str, Change] = {}
    for change in islice(_changes(policies, asked), MOST):
        if change.fact not in found and judge(change.question):
            found[change.fact] = change
    return tuple(found.values())


def told(changes: Sequence[Change]) -> tuple[str, ...]:
    """The changes in words."""
    return tuple(change.words for change in changes) or (NONE,)


def _changes(policies: PolicySet, asked: Question) -> Iterator[Change]:
    """Changes to try, least first within each fact; few-valued facts first, so that none is starved."""
    yield from _scope(asked)
    yield from _strength(asked)
    yield from _sensitivity(asked)
    yield from _lasts(policies, asked)
    yield from _confidence(policies, asked)
    yield from _destination(policies, asked)
    yield from _tool(policies, asked)
    yield from _role(asked)


def _scope(asked: Question) -> Iterator[Change]:
    act, scope = asked.act, asked.scope
    if act.action is Action.OPEN:
        if asked.facts.requested is not None and asked.chain:
            less = asked.facts.requested.meet(scope)
            if less != asked.facts.requested:
                yield _facts(asked, "scope", "nothing is asked for that the task above may not reach", requested=less)
        return
    wider = replace(
        scope,
        roles=scope.roles | ({Pattern(act.resource)} if act.action is not Action.USE else set()),
        tools=scope.tools | {Pattern(name) for name in (_tool_of(act),) if name is not None},
        destinations=scope.destinations | ({Pattern(act.destination)} if act.destination is not None else set()),
        sensitivity=max(scope.sensitivity, act.effective_sensitivity, _known(asked.facts)),
    )
    if wider != scope:
        words = f"the scope of the task, and of every task above it, reaches `{act.resource}`{_beside(asked, wider)}"
        yield Change(fact="scope", words=words, question=replace(asked, scope=wider))


def _strength(asked: Question) -> Iterator[Change]:
    now = strength_rank(asked.facts.strength)
    for strength in Strength:
        if strength_rank(strength) > now:
            words = f"the attested strength is `{strength}`, not `{asked.facts.strength}`"
            yield _facts(asked, "strength", words, strength=str(strength))


def _sensitivity(asked: Question) -> Iterator[Change]:
    act, requested = asked.act, asked.facts.requested
    if act.action is Action.OPEN:
        if requested is not None:
            for level in sorted((one for one in Sensitivity if one < requested.sensitivity), reverse=True):
                less = replace(requested, sensitivity=level)
                yield _facts(asked, "sensitivity", f"the ceiling asked for is `{level}`", requested=less)
        return
    if act.claimed_sensitivity is not None and act.claimed_sensitivity > max(act.sensitivity, _known(asked.facts)):
        yield _act(
            asked, "sensitivity", "no higher sensitivity than the role's own is claimed", claimed_sensitivity=None
        )


def _lasts(policies: PolicySet, asked: Question) -> Iterator[Change]:
    if asked.act.action is not Action.OPEN:
        return
    now = asked.facts.lasts
    for seconds in sorted({value for value in _literals(policies, asked, int) if 0 < value < 1 << 31}, reverse=True)[
        :8
    ]:
        length = timedelta(seconds=seconds)
        if now is None or length < now:
            yield _facts(asked, "lasts", f"the task ends by itself within {seconds} seconds", lasts=length)


def _confidence(policies: PolicySet, asked: Question) -> Iterator[Change]:
    edges = {value + by for value in _literals(policies, asked, int) for by in (-1, 0, 1)} | {100}
    higher = sorted(value for value in edges if asked.act.confidence < value <= 100)
    lower = sorted((value for value in edges if 0 <= value < asked.act.confidence), reverse=True)
    for value in [*higher[:14], *lower[:2]]:
        yield _act(
            asked, "confidence", f"the claimed confidence is {value}, not {asked.act.confidence}", confidence=value
        )


def _destination(policies: PolicySet, asked: Question) -> Iterator[Change]:
    now = asked.act.destination
    if now is not None:
        yield _act(asked, "destination", f"no destination is claimed, not `{now}`", destination=None)
    names = _exact(asked.scope.destinations) | (_literals(policies, asked, str) if now is not None else set())
    for name in sorted(names - {now})[:8]:
        if asked.scope.allows_destination(name):
            yield _act(asked, "destination", f"the destination is `{name}`, not `{now}`", destination=name)


def _tool(policies: PolicySet, asked: Question) -> Iterator[Change]:
    act = asked.act
    now = _tool_of(act)
    if act.action is not Action.USE and now is not None:
        yield _act(asked, "tool", f"no tool is claimed, not `{now}`", tool=None)
    names = _exact(asked.scope.tools) | _literals(policies, asked, str) | _named(policies, "Tool")
    for name in sorted(names - {now})[:8]:
        if asked.scope.allows_tool(name):
            changed = {"resource": name} if act.action is Action.USE else {"tool": name}
            yield _act(asked, "tool", f"the tool is `{name}`, not `{now}`", **changed)


def _role(asked: Question) -> Iterator[Change]:
    act = asked.act
    if act.action not in {Action.OBTAIN, Action.RENEW}:
        return
    others = [role for role in asked.facts.roles if role.full_name != act.resource]
    near = sorted(
        others, key=lambda role: (not role.full_name.startswith(act.resource.split("/", 1)[0] + "/"), role.full_name)
    )
    for role in near:
        if asked.scope.allows_role(role.full_name):
            changed = replace(act, resource=role.full_name, sensitivity=role.sensitivity)
            facts = replace(asked.facts, role=role)
            words = f"the role is `{role.full_name}`, not `{act.resource}`"
            yield Change(fact="role", words=words, question=replace(asked, act=changed, facts=facts))


def _act(asked: Question, fact: str, words: str, **changed: Any) -> Change:
    return Change(fact=fact, words=words, question=replace(asked, act=replace(asked.act, **changed)))


def _facts(asked: Question, fact: str, words: str, **changed: Any) -> Change:
    return Change(fact=fact, words=words, question=replace(asked, facts=replace(asked.facts, **changed)))


def _tool_of(act: Act) -> str | None:
    return act.resource if act.action is Action.USE else act.tool


def _known(facts: Facts) -> Sensitivity:
    return facts.role.sensitivity if facts.role is not None else Sensitivity.PUBLIC


def _exact(patterns: frozenset[Pattern]) -> set[str]:
    return {pattern.text for pattern in patterns if not pattern.is_prefix}


def _beside(asked: Question, wider: Scope) -> str:
    ceiling = f" up to `{wider.sensitivity}`" if wider.sensitivity > asked.scope.sensitivity else ""
    named = [name for name in (asked.act.tool, asked.act.destination) if name is not None]
    return ceiling + (f" with `{'`, `'.join(named)}`" if named else "")


def _literals(policies: PolicySet, asked: Question, kind: type) -> set[Any]:
    """Every number, or every text, that stands in a policy for this action."""
    action = str(asked.act.action)
    return {value for value in policies.literals(action) if type(value) is kind}


def _named(policies: PolicySet, kind: str) -> set[str]:
    return {uid.id for uid in policies.named if uid.type == kind}
