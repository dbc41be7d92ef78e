"""T33: a decommissioned target. Its leases are overdue and said to be so, until two operators give them up, unverified.

No operator does it alone: not by asking twice, not under a second certificate, not by adding somebody for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broker.lifecycle.obtain import HandOver
from broker.lifecycle.report import report
from broker.loops.gauges import Gauges
from broker.model.caller import ALL_VERBS, Operator, Verb
from broker.model.closing import summary
from broker.model.event import EventKind
from broker.model.ids import LeaseId
from broker.model.lease import LeaseState
from broker.model.receipt import ReceiptKind
from broker.model.report import Fate
from broker.model.task import Task
from broker.store import operators, quarantine
from ca.runtime.metrics import Metrics
from fakes.front import Front, call, front
from fakes.world import House

ADA, BOB = Operator(name="ada", verbs=ALL_VERBS), Operator(name="bob", verbs=ALL_VERBS)
DB = "orders-db"


@dataclass
class Gone:
    """A broker whose target is gone for good, with the leases that are left there."""

    front: Front
    task: Any
    leases: list[LeaseId]

    async def ask(self, who: Operator, what: str, *, confirm: bool = False) -> tuple[int, Any]:
        async with self.front.session(who) as session:
            return await call(session, "POST", f"/v1/{what}/disown", {"confirm": confirm})

    async def overdue(self) -> list[LeaseId]:
        async with self.front.session(ADA) as session:
            _, body = await call(session, "GET", "/v1/leases?overdue=true")
            return [one["id"] for one in body["items"]]


@pytest.fixture
async def gone(tmp_path: Path) -> AsyncIterator[Gone]:
    """Its target answers nothing any more since two leases of an ended task were to be ended there."""
    async with front(tmp_path) as found:
        house = found.house
        task = await house.open()
        leases = [(await held(house, task)).lease.id for _ in range(2)]
        house.engine.fail("end_access", times=10_000)
        await house.end(task)
        await found.tick()
        yield Gone(found, task, leases)


async def test_what_can_not_be_ended_is_overdue_and_says_so(gone: Gone) -> None:
    """After half a minute: in the list, in the gauges with the moment it should have ended, in the report."""
    assert await gone.overdue() == []
    began = gone.front.clock.now()
    await gone.front.clock.advance(31)
    await gone.front.tick()
    assert sorted(await gone.overdue()) == sorted(gone.leases)
    metrics, world = Metrics(), gone.front.house.world
    engine: Any = _Postgres()
    known = replace(world, engines={DB: engine})
    await world.database.write(_as_postgres)
    await Gauges(known, metrics).tick(gone.front.clock.now())
    assert metrics.value("sojourn_leases_overdue", engine="postgres") == 2
    oldest = metrics.value("sojourn_leases_overdue_oldest_timestamp_seconds", engine="postgres")
    assert oldest == began.timestamp()
    assert metrics.value("sojourn_targets_down", engine="postgres") == 1
    assert metrics.value("sojourn_leases_overdue", engine="redis") == 0
    found = await world.database.read(lambda tx: report(tx, gone.task.id, gone.front.clock.now()))
    assert {(line.fate, line.end_due_at) for line in found.lines} == {(Fate.ENDING, began)}


async def test_two_operators_give_it_up_and_nothing_pretends(gone: Gone) -> None:
    """Closed as `disowned`: not verified in the report, its sentence and the receipts; the task is closed then."""
    await gone.front.clock.advance(31)
    await gone.front.tick()
    status, proposed = await gone.ask(ADA, f"targets/{DB}")
    assert (status, proposed["done"], proposed["proposed_by"]) == (200, False, "ada")
    status, done = await gone.ask(BOB, f"targets/{DB}", confirm=True)
    assert (status, done["done"], done["leases"]) == (200, True, 2)
    house = gone.front.house
    assert {one.state for one in await house.leases()} == {LeaseState.DISOWNED}
    assert all(one.access_ended_at is None for one in await house.leases())
    found = await house.world.database.read(lambda tx: report(tx, gone.task.id, gone.front.clock.now()))
    assert ({line.fate for line in found.lines}, found.is_final) == ({Fate.NOT_VERIFIED}, True)
    assert {line.verified_by for line in found.lines} == {None}
    assert summary(found).startswith("2 given up, not verified")
    kinds = [entry.receipt.kind for entry in await house.receipts()]
    assert kinds.count(ReceiptKind.DISOWN_PROPOSED) == kinds.count(ReceiptKind.DISOWNED) == 1
    assert await gone.overdue() == []
    status, again = await gone.ask(BOB, f"targets/{DB}", confirm=True)
    assert (status, again["code"]) == (404, "not-found")


async def test_one_operator_is_not_two(gone: Gone) -> None:
    """Not by confirming it alone, nor under another certificate of the same name, nor with somebody added for it."""
    await gone.front.clock.advance(31)
    lease = f"leases/{gone.leases[0]}"
    assert (await gone.ask(ADA, lease, confirm=True))[0] == 404, "nobody proposed it"
    await gone.ask(ADA, lease)
    assert (await gone.ask(ADA, lease, confirm=True))[0] == 403
    assert (await gone.ask(Operator(name="ada", verbs=frozenset({Verb.DISOWN_LEASES})), lease, confirm=True))[0] == 403
    await gone.front.clock.advance(1)
    eve = Operator(name="eve", verbs=ALL_VERBS)
    now = gone.front.clock.now()
    await gone.front.house.world.database.write(lambda tx: operators.add(tx, eve, b"a certificate", "ada", now))
    assert (await gone.ask(eve, lease, confirm=True))[0] == 403
    weak = Operator(name="bob", verbs=ALL_VERBS - {Verb.DISOWN_LEASES})
    assert (await gone.ask(weak, lease, confirm=True))[0] == 403
    assert {one.state for one in await gone.front.house.leases()} == {LeaseState.REVOKING}
    await gone.ask(BOB, lease)  # as the second, without the word for it: the first proposal stands
    assert (await gone.ask(BOB, lease, confirm=True))[0] == 200
    states = {one.id: one.state for one in await gone.front.house.leases()}
    assert [states[one] for one in gone.leases] == [LeaseState.DISOWNED, LeaseState.REVOKING]


async def test_a_proposal_is_forgotten_after_an_hour(gone: Gone) -> None:
    """What was meant once is not what is meant today."""
    await gone.front.clock.advance(31)
    await gone.ask(ADA, f"targets/{DB}")
    await gone.front.clock.advance(3600)
    assert (await gone.ask(BOB, f"targets/{DB}", confirm=True))[0] == 404
    assert {one.state for one in await gone.front.house.leases()} == {LeaseState.REVOKING}


async def test_what_ends_by_itself_is_not_given_up(gone: Gone) -> None:
    """Neither a lease that is not overdue, nor one in use, nor anything at a target that answers."""
    assert (await gone.ask(ADA, f"leases/{gone.leases[0]}"))[0] == 409
    house = gone.front.house
    house.engine._cues.clear()
    house.world.targets[DB].breaker.answered()
    in_use = await held(house, await house.open())
    assert (await gone.ask(ADA, f"leases/{in_use.lease.id}"))[0] == 409
    assert (await gone.ask(ADA, f"targets/{DB}"))[0] == 409


async def test_what_is_in_use_at_a_target_that_is_gone_is_ended_and_given_up(tmp_path: Path) -> None:
    """It was taken out of the settings: whatever was given there, its end is decided and not verified."""
    async with front(tmp_path) as found:
        house = found.house
        task = await house.open()
        handed = await held(house, task)
        gate = found.gate
        object.__setattr__(gate, "world", replace(house.world, engines={}, targets={}, roles={}))
        here = Gone(found, task, [handed.lease.id])
        await here.ask(ADA, f"targets/{DB}")
        assert (await here.ask(BOB, f"targets/{DB}", confirm=True))[1]["leases"] == 1
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.access_ended_at) == (LeaseState.DISOWNED, None)
        assert "ada and bob" in (lease.trouble or "")


async def test_what_can_not_even_be_read_is_given_up_too(gone: Gone) -> None:
    """By the same two: its task is over then, and nobody is alarmed by it any more."""
    house, bad = gone.front.house, gone.leases[0]
    await house.world.database.write(lambda tx: tx.execute("UPDATE leases SET facts = '{' WHERE id = $1", bad))
    await gone.front.clock.advance(31)
    await gone.front.tick()
    assert await gone.overdue() == gone.leases[1:]
    assert [row.key for row in await house.world.database.read(quarantine.all_of)] == [bad]
    for what in (f"leases/{bad}", f"leases/{gone.leases[1]}"):
        assert (await gone.ask(ADA, what))[0] == 200
        assert (await gone.ask(BOB, what, confirm=True))[0] == 200
    assert not await house.world.database.read(quarantine.all_of)
    assert EventKind.TASK_CLOSED in [event.kind for event in await house.events()]


async def test_a_target_that_comes_back_is_swept(gone: Gone) -> None:
    """What was given up is found under the names of closed leases, and destroyed after all."""
    await gone.front.clock.advance(31)
    await gone.front.tick()
    await gone.ask(ADA, f"targets/{DB}")
    await gone.ask(BOB, f"targets/{DB}", confirm=True)
    house = gone.front.house
    assert len(house.engine.target.principals) == 2
    house.engine._cues.clear()
    await gone.front.clock.advance(20)
    await house.sweep()
    assert not house.engine.target.principals


async def held(house: House, task: Task) -> HandOver:
    """A secret that was acknowledged, under the policies in force."""
    permit = house.permit(task, policy=house.world.policy_version())
    return await house.held(task, permit=permit)


class _Postgres:
    kind = "postgres"


async def _as_postgres(tx: Any) -> None:
    await tx.execute("UPDATE leases SET engine = 'postgres'")
