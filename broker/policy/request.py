"""Caller, task, act and facts as Cedar's principal, action, resource, context and entities.

Cedar treats an entity it wasn't given as one without ancestors: `forbid(principal in …)` is then silently passed over
(traps 14). So the entities are built here from whole values, their closure is checked (`closed`), and what isn't whole
is `Incomplete`, which denies. Claimed facts stand under `context.claimed` and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from attestor.instance import Strength
from broker.model.act import Act, Action
from broker.model.caller import Workload
from broker.model.scope import Sensitivity
from broker.model.task import Task, is_chain
from broker.policy.facts import Facts
from broker.policy.slices import Uid
from ca.spiffe.id import SpiffeId

_REMEMBERED = 1024
_RANKS = {str(strength): strength.rank + 1 for strength in Strength}
"""What the schema calls `strength`; what isn't known is 0."""


class Incomplete(Exception):
    """A fact that is needed is missing; the answer is deny."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One thing with its attributes (scalars, or the `Uid` of another thing) and what it lies in directly."""

    uid: Uid
    parents: tuple[Uid, ...] = ()
    attributes: tuple[tuple[str, str | int | bool | Uid], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Cedar's form."""
        return {
            "uid": self.uid.to_json(),
            "parents": [parent.to_json() for parent in self.parents],
            "attrs": {name: _attribute(value) for name, value in self.attributes},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who asks for what, with every thing that is named: `above` is what the resource lies in, `entities` JSON."""

    principal: Uid
    resource: Uid
    above: tuple[Uid, ...]
    entities: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What Cedar is asked; `context` is JSON."""

    place: Place
    action: str
    context: str

    def to_cedar(self) -> dict[str, Any]:
        """The form cedarpy takes."""
        return {
            "principal": self.place.principal.to_json(),
            "action": {"type": "Action", "id": self.action},
            "resource": self.place.resource.to_json(),
            "context": self.context,
        }


def strength_rank(strength: str) -> int:
    """The schema's number for a strength; 0 for one nobody vouches for."""
    return _RANKS.get(strength, 0)


def build(caller: Workload, chain: Sequence[Task], act: Act, facts: Facts, sensitivity: Sensitivity) -> Request:
    """The request for one act at one sensitivity.

    Raises:
        Incomplete: the chain isn't whole, or a fact the action needs is missing.
    """
    if chain and not is_chain(chain):
        raise Incomplete("the chain of tasks is not whole")
    if not chain and act.action is not Action.OPEN:
        raise Incomplete("no task is named")
    context = {
        "attested": {"strength": strength_rank(facts.strength)},
        "broker": _known(chain, act, facts, sensitivity),
        "claimed": _claimed(chain, act, facts),
    }
    line = tuple([(task.id, str(task.owner), task.instance is not None) for task in chain])
    place = _place(str(caller.id), str(facts.trust_domain), *_asked_for(act, facts), line)
    return Request(place=place, action=str(act.action), context=json.dumps(context))


def _asked_for(act: Act, facts: Facts) -> tuple[str, str, str, str]:
    """The resource: its type and id, and for a role the target it lies in and its engine."""
    if act.action is Action.OPEN:
        return "TrustDomain", str(facts.trust_domain), "", ""
    if act.action is Action.USE:
        return "Tool", act.resource, "", ""
    role = facts.role
    if role is None or role.full_name != act.resource:
        raise Incomplete(f"nothing is known of the role `{act.resource[:80]}`")
    return "Role", act.resource, role.target, role.engine


@lru_cache(_REMEMBERED)
def _place(  # noqa: PLR0917 - only called above; a cache's key is made of few and plain values
    caller: str, domain: str, kind: str, name: str, target: str, engine: str, line: tuple[tuple[str, str, bool], ...]
) -> Place:
    """The part of a request that holds no fact of the moment; the same for each act of one task on one resource.

    A pure function of its arguments, so what it made may be used again.

    Raises:
        Incomplete: something is named that isn't there.
    """
    own, principal, resource = Uid("TrustDomain", domain), Uid("Agent", caller), Uid(kind, name)
    things = [Entity(uid=own)]
    if kind == "Tool":
        things.append(Entity(uid=resource, attributes=(("trust_domain", own),)))
    above: tuple[Uid, ...] = ()
    if kind == "Role":
        above = (Uid("Target", target),)
        attributes = (("engine", engine), ("trust_domain", own))
        things += [Entity(uid=resource, parents=above, attributes=attributes), *(Entity(uid=uid) for uid in above)]
    found = [*things, *_agent(SpiffeId.parse(caller)), *_tasks(line)]
    named = [principal, resource, *(Uid("Task", task) for task, _, _ in line)]
    return Place(principal=principal, resource=resource, above=above, entities=whole(found, named))


def whole(entities: Iterable[Entity], named: Iterable[Uid]) -> str:
    """The entities as Cedar reads them, each once.

    Raises:
        Incomplete: something is named that isn't among them.
    """
    known = {entity.uid: entity for entity in entities}
    missing = closed(known.values(), named)
    if missing is not None:
        raise Incomplete(f"`{missing}` is named and not known")
    return json.dumps([entity.to_json() for entity in known.values()])


def closed(entities: Iterable[Entity], named: Iterable[Uid]) -> Uid | None:
    """The first thing that is named (by the request, as a parent or in an attribute) and not among the entities."""
    known = {entity.uid: entity for entity in entities}
    wanted = list(named)
    for entity in known.values():
        wanted += entity.parents
        wanted += [value for _, value in entity.attributes if isinstance(value, Uid)]
    return next((uid for uid in wanted if uid not in known), None)


def _agent(identity: SpiffeId) -> list[Entity]:
    """An agent, the paths it lies in (its own id first), and its trust domain."""
    segments = identity.path.split("/")
    paths = [
        Uid("AgentPath", f"spiffe://{identity.trust_domain}{'/'.join(segments[:length])}")
        for length in range(len(segments), 1, -1)
    ]
    domain = Uid("TrustDomain", str(identity.trust_domain))
    ladder = [Uid("Agent", str(identity)), *paths, domain]
    return [*(Entity(uid=lower, parents=(upper,)) for lower, upper in pairwise(ladder)), Entity(uid=domain)]


def _tasks(line: Sequence[tuple[str, str, bool]]) -> Iterable[Entity]:
    for depth, (task, owner, bound) in enumerate(line):
        yield from _agent(SpiffeId.parse(owner))
        yield Entity(
            uid=Uid("Task", task),
            parents=(Uid("Task", line[depth - 1][0]),) if depth else (),
            attributes=(("owner", Uid("Agent", owner)), ("depth", depth), ("bound", bound)),
        )


def _known(chain: Sequence[Task], act: Act, facts: Facts, sensitivity: Sensitivity) -> dict[str, Any]:
    known: dict[str, Any] = {"sensitivity": int(sensitivity)}
    if chain:
        known["task"] = {"__entity": {"type": "Task", "id": chain[-1].id}}
    if act.action is not Action.OPEN:
        return known
    asked = facts.requested
    if asked is None:
        raise Incomplete("no scope is asked for")
    for name, patterns in (("roles", asked.roles), ("tools", asked.tools), ("destinations", asked.destinations)):
        known[name] = sorted(map(str, patterns))
    if facts.lasts is not None:
        known["lasts"] = int(facts.lasts.total_seconds())
    return known


def _claimed(chain: Sequence[Task], act: Act, facts: Facts) -> dict[str, Any]:
    purpose = chain[-1].purpose if chain and act.action is not Action.OPEN else facts.purpose
    claimed: dict[str, Any] = {"confidence": act.confidence, "purpose": purpose}
    if act.tool is not None:
        claimed["tool"] = act.tool
    if act.destination is not None:
        claimed["destination"] = act.destination
    return claimed


def _attribute(value: object) -> Any:
    return {"__entity": value.to_json()} if isinstance(value, Uid) else value
