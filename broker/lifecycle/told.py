"""What is said of a lease and a task: one receipt and one event for each step, in the same words everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from broker.lifecycle.world import World
from broker.model.act import Act
from broker.model.caller import Caller
from broker.model.decision import Decision, Permit
from broker.model.event import Event, EventKind
from broker.model.ids import TaskId
from broker.model.lease import Lease
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.task import Task
from broker.store import receipts
from broker.store.tasks import Drained
from ca.runtime.database import Transaction

_NAMED = 16
"""Chains a new one names: more brokers than that don't share a store."""


def decided(permit: Permit) -> Receipt:
    """The decision a grant stands on."""
    return decision(permit.caller, permit.task.id, permit.act, permit.decision)


def decision(caller: Caller, task: TaskId | None, act: Act, said: Decision, **more: Any) -> Receipt:
    """Any decision, whichever way it went."""
    body = {
        "action": str(act.action),
        "resource": act.resource,
        "sensitivity": str(act.effective_sensitivity),
        "destination": act.destination,
        "decision": said.id,
        "effect": str(said.effect),
        "policies": list(said.policies),
        "policy_version": said.policy_version,
        "reason": said.reason,
        **more,
    }
    return Receipt(kind=ReceiptKind.DECIDED, at=said.decided_at, actor=str(caller), task=task, body=body)


def receipt(kind: ReceiptKind, lease: Lease, actor: str, now: datetime, **more: Any) -> Receipt:
    """A step of a lease."""
    body: Mapping[str, Any] = {
        "role": lease.role,
        "principal": lease.handle.name,
        "target": lease.handle.target,
        "generation": lease.generation,
        **more,
    }
    return Receipt(kind=kind, at=now, actor=actor, task=lease.task, lease=lease.id, body=body)


def event(kind: EventKind, lease: Lease, root: TaskId, now: datetime, **more: Any) -> Event:
    """A step of a lease, as told to enforcement points, agents and operators."""
    return Event(kind=kind, at=now, task=lease.task, root=root, lease=lease.id, body={"role": lease.role, **more})


def task_event(kind: EventKind, task: Task, now: datetime, **more: Any) -> Event:
    """A step of a task."""
    body = {"state": str(task.state), "version": task.version, **more}
    return Event(kind=kind, at=now, task=task.id, root=task.root, body=body)


def task_closed(drained: Drained, now: datetime) -> Event:
    """Nothing of an ended task is left outside."""
    body = {"state": drained.state, "version": drained.version}
    return Event(kind=EventKind.TASK_CLOSED, at=now, task=drained.task, root=drained.root, body=body)


async def started(tx: Transaction, writer: str, now: datetime) -> None:
    """Begin a writer's chain where those before it ended, so that a chain that was dropped whole is missed.

    Each start names the newest ends only; they name those before them.
    """
    after = {entry.writer: f"{entry.number}:{entry.hash}" for entry in await receipts.newest_heads(tx, _NAMED)}
    first = Receipt(kind=ReceiptKind.BROKER_STARTED, at=now, actor=f"broker:{writer}", body={"after": after})
    await receipts.append(tx, writer, first)


def us(world: World) -> str:
    """The actor of what the broker does by itself."""
    return f"broker:{world.broker}"
