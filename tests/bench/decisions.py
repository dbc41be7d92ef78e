"""Decisions in process, at 10, 100 and 1,000 policies, beside Cedar alone on the policies that can apply.

Ours is the whole of `decide`: the chain's liveness, the scope, entities and their closure, the slice, Cedar, the
reason. Raw is one `is_authorized` with everything made and compiled beforehand. Forty tasks of one agent ask for twenty
roles in turn and again, so who asks for what is known from the time before; `asked for the first time` is told apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import cedarpy

from bench.table import Row, Unit, rate_rows, time_rows
from bench.timing import Load, Spread, cpu_seconds, now
from broker.model.act import Act
from broker.model.task import Task
from broker.policy.decide import decide
from broker.policy.facts import Facts
from broker.policy.request import build
from broker.policy.slices import PolicySet
from broker.policy.source import parse
from fakes.nouns import NOW, caller, facts, obtain, role, task

T = TypeVar("T")
_Prepared = tuple[dict[str, object], cedarpy.PolicySet, cedarpy.Entities]

_DECISIONS, _WARM = 6000, 1000
_DENIALS = 300
_TASKS, _ROLES = 40, 20
_TURNS = 3
_LIMIT = "`cedarpy.is_authorized` on the slice, all of it made beforehand"
_HEAD = """\
@id("never.strangers") forbid (principal, action in Action::"credential", resource)
unless { principal in resource.trust_domain };
@id("never.doubtful") forbid (principal, action == Action::"obtain", resource)
when { context.broker.sensitivity >= 3 && context.claimed.confidence < 50 };
"""


@dataclass(frozen=True, slots=True)
class _Question:
    chain: Sequence[Task]
    act: Act
    facts: Facts


async def measure(folder: Path) -> list[Row]:
    """Each size; at the largest also what is not known yet, and what a denial with its nearest change costs."""
    rows: list[Row] = []
    for size in (10, 100, 1000):
        policies = parse({"bench.cedar": _text(size)})
        ours, raw = _both(policies, size)
        rows += rate_rows("decisions", f"decisions, {size:,} policies", ours, raw, _LIMIT)
        rows += time_rows("decisions", f"a decision, {size:,} policies", ours.each, raw.each, _LIMIT)[1:]
    fresh = _timed(_questions(size, tasks=350), _permitted(policies), _DECISIONS)
    rows += rate_rows("decisions", f"decisions, {size:,} policies, asked for the first time", fresh, raw, _LIMIT)
    permitted, elsewhere = _permitted(policies), _questions(size, destination="elsewhere/x")
    denials = _timed(elsewhere, lambda one: not permitted(one), _DENIALS)
    denied = Row(
        bench="decisions",
        what=f"a denial with its nearest change, {size:,} policies, p99",
        unit=Unit.MILLISECONDS,
        ours=denials.each.milliseconds(0.99),
        limit=raw.each.milliseconds(0.99),
        limit_is="one `is_authorized`; up to 64 are asked",
        n=denials.done,
    )
    return [*rows, denied]


def _both(policies: PolicySet, size: int) -> tuple[Load, Load]:
    """Ours and raw, in turns."""
    asked = _questions(size)
    prepared = cycle([_prepared(policies, one) for one in islice(asked, _TASKS * _ROLES)])
    ours, raw = [], []
    for _ in range(_TURNS):
        ours.append(_timed(asked, _permitted(policies), _DECISIONS // _TURNS))
        raw.append(_timed(prepared, _authorized(policies), _DECISIONS // _TURNS))
    return sum(ours[1:], ours[0]), sum(raw[1:], raw[0])


def _permitted(policies: PolicySet) -> Callable[[_Question], bool]:
    who = caller()
    return lambda one: decide(policies, who, one.chain, one.act, one.facts, NOW).permits


def _authorized(policies: PolicySet) -> Callable[[_Prepared], bool]:
    return lambda one: cedarpy.is_authorized(*one, policies.schema).allowed


def _text(size: int) -> str:
    """Two forbids that hold for everything, and permits and forbids in turn for one role each."""
    lines = [_HEAD]
    for number in range((size - 2) // 2):
        where = f'resource == Role::"db{number}/readonly"'
        lines.append(
            f'@id("permit.{number}") @reason("agents may read database {number}")\n'
            f'permit (principal in AgentPath::"spiffe://example.org/agents", action in Action::"credential", {where})\n'
            "when { context.broker.sensitivity <= 1 && context.attested.strength >= 3 };\n"
            f'@id("forbid.{number}") forbid (principal, action == Action::"obtain", {where})\n'
            'when { context.claimed has destination && !(context.claimed.destination like "house/*") };'
        )
    return "\n".join(lines)


def _questions(size: int, tasks: int = _TASKS, **claimed: str) -> Iterator[_Question]:
    most = min(_ROLES, (size - 2) // 2)
    roles = [role(f"db{(size // 4 + number) % ((size - 2) // 2)}/readonly") for number in range(most)]
    chains = [(above := task(), task(above)) for _ in range(tasks)]
    each = [
        _Question(chain, obtain(one.full_name, **claimed), facts(role=one, roles=roles))
        for chain in chains
        for one in roles
    ]
    return cycle(each)


def _prepared(policies: PolicySet, one: _Question) -> _Prepared:
    request = build(caller(), one.chain, one.act, one.facts, one.act.sensitivity)
    place = request.place
    sliced = policies.sliced(request.action, place.resource, place.above)
    return request.to_cedar(), sliced, policies.entities(place.entities)


def _timed(asked: Iterator[T], decided: Callable[[T], bool], times: int) -> Load:
    """One after the other; each must answer as the bench meant it to."""
    took = []
    for one in islice(asked, _WARM):
        decided(one)
    begun, cpu = now(), cpu_seconds(os.getpid())
    for one in islice(asked, times):
        before = now()
        if not decided(one):
            raise RuntimeError("a decision of the bench went the other way")
        took.append(now() - before)
    return Load(done=times, seconds=now() - begun, cpu=cpu_seconds(os.getpid()) - cpu, each=Spread.of(took))
