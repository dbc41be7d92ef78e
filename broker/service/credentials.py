"""Ask for a secret: the longest road through the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.engines.protocol import Engine
from broker.lifecycle.obtain import HandOver, obtain
from broker.model.act import Act, Action
from broker.model.decision import Decision
from broker.model.ids import TaskId
from broker.model.role import Guarantee, Role
from broker.model.scope import Sensitivity
from broker.service.gate import Gate
from broker.service.proofs import Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a task asks for; `sensitivity`, `destination` and `confidence` are claims and can only make it stricter."""

    role: str
    ttl: timedelta | None = None
    sensitivity: Sensitivity | None = None
    destination: str | None = None
    confidence: int = 0
    idempotency_key: str | None = None
    digest: str = ""


async def ask(gate: Gate, asked: Asked, task: TaskId, wish: Wish) -> tuple[HandOver, Decision]:
    """Decide, record, make and hand over one secret.

    Raises:
        NotFound: not the caller's task.
        Malformed: no such role.
        Denied, Refused: the task may be given nothing now, or the policies deny it.
        and everything `lifecycle.obtain` raises.
    """
    chain = await gate.proven(asked, task)
    observed = gate.usable(chain, asked.now)
    role = gate.role(wish.role)
    permit = await gate.permit(asked.workload, chain, _act(role, wish), gate.facts(observed, role), asked.now)
    made = await obtain(
        gate.world,
        permit,
        role,
        idempotency_key=wish.idempotency_key,
        body_digest=wish.digest,
        ttl=wish.ttl,
        now=asked.now,
    )
    gate.metrics.count("sojourn_leases_issued_total", engine=role.engine)
    return made, permit.decision


def offered(gate: Gate) -> Sequence[tuple[Role, Guarantee]]:
    """Every role there is, with what taking it back means; whether a task may have it is decided when it asks."""
    engines: dict[str, Engine] = dict(gate.world.engines)
    return [
        (role, engines[role.target].guarantee(role)) for role in gate.world.roles.values() if role.target in engines
    ]


def _act(role: Role, wish: Wish) -> Act:
    return Act(
        action=Action.OBTAIN,
        resource=role.full_name,
        sensitivity=role.sensitivity,
        destination=wish.destination,
        claimed_sensitivity=wish.sensitivity,
        confidence=wish.confidence,
    )
