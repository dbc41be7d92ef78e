"""What is said of a lease and its task: every step once, in receipts and events, to the last member."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from broker.lifecycle import told
from broker.lifecycle.acknowledge import acknowledge
from broker.lifecycle.obtain import HandOver
from broker.model.decision import Permit
from broker.model.event import EventKind
from broker.model.receipt import ReceiptKind
from broker.model.task import EndReason
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from fakes.world import AGENT, POLICY, House, living

pytestmark = pytest.mark.usefixtures("on_every_store")

Said = tuple[Any, ...]


async def receipts(house: House) -> list[Said]:
    """What was written into this broker's chain, with nothing left out."""
    entries = await house.receipts()
    assert {entry.writer for entry in entries} <= {house.world.broker}
    said = [entry.receipt for entry in entries]
    return [(one.kind, one.at, one.actor, one.task, one.lease, dict(one.body)) for one in said]


async def events(house: House) -> list[Said]:
    """What was told, in its order."""
    return [(one.kind, one.at, one.task, one.root, one.lease, dict(one.body)) for one in await house.events()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """Two tasks and the lease of the lower one, from the decision to the end by an operator; and the two moments."""

    root: str
    task: str
    handed: HandOver
    permit: Permit
    until: str
    begun: datetime
    over: datetime

    @classmethod
    async def of(cls, house: House) -> Life:
        """Live it."""
        root = await house.open()
        task = await house.open(root)
        begun, permit = house.clock.now(), house.permit(task)
        handed = await house.obtain(task, permit=permit)
        await acknowledge(house.world, task.id, handed.lease.id, str(AGENT), begun)
        await house.clock.advance(61)
        await house.reap()
        until = (await house.lease(handed.lease.id)).until.isoformat()
        await house.end(root, EndReason.OPERATOR, words="enough", actor="operator:ada")
        await house.reap()
        over = house.clock.now()
        return cls(root=root.id, task=task.id, handed=handed, permit=permit, until=until, begun=begun, over=over)


ENDED = {"state": "cancelled", "version": 2, "reason": "operator", "words": "enough"}
BELOW = {"state": "cancelled", "version": 2, "reason": "parent-ended", "words": None}
REVOKING = {"state": "revoking", "reason": "task-ended"}
CUT = {"sessions_cut": 0, "endpoints": 1}
REVOKED = {"state": "revoked", "reason": "task-ended"}
CLOSED = {"state": "cancelled", "version": 2}


async def test_every_step_has_its_receipt(tmp_path: Path) -> None:
    """Decided, intended, made, received, renewed, ended with the task above, and gone: who, what, when and why."""
    async with living(tmp_path) as house:
        life = await Life.of(house)
        lease, begun, over, decision = life.handed.lease, life.begun, life.over, life.permit.decision
        step = {"role": lease.role, "principal": lease.handle.name, "target": "orders-db", "generation": 1}
        decided = {
            "action": "obtain",
            "resource": "orders-db/readonly",
            "sensitivity": "internal",
            "destination": None,
            "decision": decision.id,
            "effect": "permit",
            "policies": ["allow-readers"],
            "policy_version": POLICY,
            "reason": "readers may read",
        }
        kind, agent, us, ada = ReceiptKind, str(AGENT), f"broker:{house.world.broker}", "operator:ada"
        assert await receipts(house) == [
            (kind.DECIDED, begun, agent, life.task, None, decided),
            (kind.LEASE_INTENDED, begun, agent, life.task, lease.id, step),
            (kind.LEASE_ACTIVATED, begun, agent, life.task, lease.id, step),
            (kind.LEASE_ACKNOWLEDGED, begun, agent, life.task, lease.id, step),
            (kind.LEASE_RENEWED, over, us, life.task, lease.id, {**step, "until": life.until}),
            (kind.TASK_ENDED, over, ada, life.root, None, {**ENDED, "with": life.root}),
            (kind.TASK_ENDED, over, ada, life.task, None, {**BELOW, "with": life.root}),
            (kind.LEASE_REVOKING, over, us, life.task, lease.id, {**step, **REVOKING}),
            (kind.LEASE_ACCESS_ENDED, over, us, life.task, lease.id, {**step, **CUT}),
            (kind.LEASE_CLOSED, over, us, life.task, lease.id, {**step, **REVOKED}),
        ]


async def test_every_step_that_others_act_on_is_told(tmp_path: Path) -> None:
    """In the order in which it became true, each with the tree it belongs to."""
    async with living(tmp_path) as house:
        life = await Life.of(house)
        lease, root, over = life.handed.lease.id, life.root, life.over
        role = {"role": "orders-db/readonly"}
        event = EventKind
        assert await events(house) == [
            (event.LEASE_ISSUED, life.begun, life.task, root, lease, role),
            (event.LEASE_RENEWED, over, life.task, root, lease, {**role, "until": life.until}),
            (event.TASK_ENDED, over, root, root, None, {**ENDED, "parent": None}),
            (event.TASK_ENDED, over, life.task, root, None, {**BELOW, "parent": root}),
            (event.TASK_CLOSED, over, root, root, None, CLOSED),  # itself it held nothing
            (event.LEASE_REVOKING, over, life.task, root, lease, {**role, **REVOKING}),
            (event.LEASE_ACCESS_ENDED, over, life.task, root, lease, {**role, **CUT}),
            (event.LEASE_CLOSED, over, life.task, root, lease, {**role, **REVOKED}),
            (event.TASK_CLOSED, over, life.task, root, None, CLOSED),
        ]


async def test_each_start_names_the_ends_of_the_chains_before_it(tmp_path: Path) -> None:
    """So a chain that is dropped whole is missed: the next one names its writer, its number and its hash."""
    async with living(tmp_path) as house:
        first = house.clock.now()
        for writer in ("b-one", "b-two"):
            await house.world.database.write(lambda tx, writer=writer: told.started(tx, writer, first))  # type: ignore[misc]
        one, two = await house.receipts()
        assert [(entry.writer, entry.receipt.kind, entry.receipt.actor) for entry in (one, two)] == [
            ("b-one", ReceiptKind.BROKER_STARTED, "broker:b-one"),
            ("b-two", ReceiptKind.BROKER_STARTED, "broker:b-two"),
        ]
        assert one.receipt.body == {"after": {}}
        assert two.receipt.body == {"after": {"b-one": f"1:{one.hash}"}}
