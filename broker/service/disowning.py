"""What can't be verified to have ended is given up by two operators: never what a target that answers still ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.lifecycle import disown
from broker.model.caller import Verb
from broker.model.ids import LeaseId
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import leases
from broker.store.disownings import LIFE
from broker.store.quarantine import Unreadable
from ca.errors import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Disowned:
    """How it stands: proposed, until when, or given up, how many."""

    what: str
    proposed_by: str | None
    until: datetime | None
    leases: int
    done: bool


async def lease(gate: Gate, asked: Asked, lease_id: LeaseId, *, confirm: bool) -> Disowned:
    """Propose to give up one lease, or confirm it; one whose row can't be read too.

    Raises:
        Denied: the caller may not, or proposed it.
        Conflict: its end is not overdue, it goes on by itself.
        NotFound, NotPossible: as `lifecycle.disown`.
    """
    by = asked.demand(Verb.DISOWN_LEASES).name
    try:
        found = await gate.world.database.read(lambda tx: leases.get(tx, lease_id))
    except Unreadable:
        return await _either(gate, f"lease:{lease_id}", by, asked.now, confirm=confirm)
    if not found.is_closed and not found.is_overdue(asked.now):
        raise Conflict("the end of this lease is not overdue, nothing has to be given up", lease=lease_id)
    return await _either(gate, f"lease:{lease_id}", by, asked.now, confirm=confirm)


async def target(gate: Gate, asked: Asked, name: str, *, confirm: bool) -> Disowned:
    """Propose to give up everything open at a target, or confirm it.

    Raises:
        Denied: the caller may not, or proposed it.
        Conflict: the target answers.
        NotFound: nobody proposed it within the hour.
    """
    by = asked.demand(Verb.DISOWN_LEASES).name
    calls = gate.world.targets.get(name)
    if calls is not None and not calls.breaker.is_open:
        raise Conflict(f"the target `{name[:60]}` is configured and not known to be down: its leases end by themselves")
    return await _either(gate, f"target:{name}", by, asked.now, confirm=confirm)


async def _either(gate: Gate, what: str, by: str, now: datetime, *, confirm: bool) -> Disowned:
    if confirm:
        count = await disown.give_up(gate.world, what, by, now)
        return Disowned(what=what, proposed_by=None, until=None, leases=count, done=True)
    proposal = await disown.propose(gate.world, what, by, now)
    return Disowned(what=what, proposed_by=proposal.by, until=proposal.at + LIFE, leases=0, done=False)
