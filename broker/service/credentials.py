"""Ask for a secret: the longest road through the gate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from broker.errors import QuotaReached
from broker.lifecycle.obtain import HandOver, obtain
from broker.lifecycle.world import promised
from broker.model.decision import Decision
from broker.model.ids import TaskId
from broker.model.role import Guarantee, Role
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.wire.credentials import AskCredential


async def ask(
    gate: Gate, asked: Asked, task: TaskId, wish: AskCredential, key: str | None
) -> tuple[HandOver, Decision]:
    """Decide, record, make and hand over one secret; `key` is the request's idempotency key.

    Raises:
        NotFound: not the caller's task.
        Malformed: no such role.
        Denied, Refused: the task may be given nothing now, or the policies deny it.
        and everything `lifecycle.obtain` raises.
    """
    chain = await gate.proven(asked, task)
    await gate.watch(chain)
    observed = gate.usable(chain, asked.now)
    role = gate.role(wish.role)
    permit = await gate.permit(asked.workload, chain, wish.to_act(role), gate.facts(observed, role), asked.now)
    try:
        made = await obtain(
            gate.world,
            permit,
            role,
            idempotency_key=key,
            body_digest=hashlib.sha256(wish.model_dump_json().encode()).hexdigest(),
            ttl=wish.ttl,
            now=asked.now,
        )
    except QuotaReached as reached:
        gate.metrics.count("sojourn_quotas_reached_total", quota=str(reached.details["quota"]))
        raise
    gate.metrics.count("sojourn_leases_issued_total", engine=role.engine)
    return made, permit.decision


def offered(gate: Gate) -> Sequence[tuple[Role, Guarantee]]:
    """Every role there is, with what taking it back means; whether a task may have it is decided when it asks."""
    engines = gate.world.engines
    return [
        (role, promised(engines[role.target], role))
        for role in gate.world.roles.values()
        if role.target in engines and role.full_name not in gate.world.leaving
    ]
