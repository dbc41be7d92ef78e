"""Open, beat, narrow, wait, end: what may be asked of a task by whoever proves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.errors import ClockUntrusted
from broker.lifecycle import end_task
from broker.model.act import Act, Action
from broker.model.caller import Verb, Workload
from broker.model.decision import Decision
from broker.model.event import Event, EventKind
from broker.model.ids import LeaseId, TaskId, new_task
from broker.model.observed import Observation, Observed
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.scope import Scope
from broker.model.task import EndReason, Task, TaskEvent, TaskState, after
from broker.service.gate import Gate, decided, refusal
from broker.service.leases import received_all
from broker.service.proofs import Asked
from broker.store import events, receipts, tasks
from ca.errors import Denied, Exhausted, Malformed
from ca.runtime.database import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a caller asks for. `bind`: to the instance that opens it; `key`: a thumbprint to prove it with instead."""

    purpose: str
    scope: Scope
    deadline: datetime | None
    heartbeat: timedelta | None
    bind: bool
    key: str | None
    parent: TaskId | None


async def open_task(gate: Gate, asked: Asked, ask: Opening) -> tuple[Task, Decision]:
    """Open a task.

    Raises:
        Refused: the policies deny it.
        Denied: the parent, or the caller's process, may not be given anything.
        Malformed: the deadline or the heartbeat is out of bounds, or an unbound task has no deadline.
        Fenced: the parent changed meanwhile.
    """
    opener, now = asked.workload, asked.now
    if not gate.world.clock.trusted():
        raise ClockUntrusted("the machine's clock was stepped, nothing is given until it is stable for a minute")
    above: Sequence[Task] = ()
    if ask.parent is not None:
        above = await gate.proven(asked, ask.parent)
        gate.usable(above, now)
    observed = await _bind(gate, opener, ask)
    task = _task(gate, opener, ask, above, now)
    act = Act(action=Action.OPEN, resource=str(opener.id), sensitivity=ask.scope.sensitivity)
    lasts = None if task.deadline is None else task.deadline - now
    facts = replace(gate.facts(observed), requested=task.scope, lasts=lasts, purpose=task.purpose)
    decision = gate.decide(opener, above, act, facts, now)
    if not decision.permits:
        await gate.record_denial(opener, above[-1] if above else None, act, decision)
        raise refusal(decision)
    await _insert(gate, task, above, act, decision)
    gate.world.feed.set()
    return task, decision


async def _bind(gate: Gate, opener: Workload, ask: Opening) -> Observed:
    if not ask.bind or opener.instance is None:
        if ask.deadline is None:
            raise Malformed("a task that is bound to no process needs a deadline", key="deadline")
        if not ask.key and not opener.instance:
            raise Malformed("a task that is bound to no process needs a key to prove it with", key="key")
        return Observed(state=Observation.UNKNOWN, strength="none")
    observed = await gate.world.observer.bind(opener.instance)
    if observed.state in {Observation.ENDED, Observation.UNOBSERVED}:
        raise Denied(f"the opener's process is `{observed.state}`, expected one that is seen to live")
    if observed.state is Observation.UNKNOWN and ask.deadline is None:
        raise Malformed("nobody here watches the opener's process, so the task needs a deadline", key="deadline")
    return observed


def _task(gate: Gate, opener: Workload, ask: Opening, above: Sequence[Task], now: datetime) -> Task:
    limits = gate.limits
    if ask.deadline is not None and not now < ask.deadline <= now + limits.longest_task:
        raise Malformed(f"the deadline must lie ahead, within {limits.longest_task}", key="deadline")
    if ask.heartbeat is not None and not timedelta(seconds=1) <= ask.heartbeat <= limits.longest_heartbeat:
        raise Malformed(f"a heartbeat is between 1 s and {limits.longest_heartbeat}", key="heartbeat")
    if len(above) >= limits.deepest_tree:
        raise Exhausted(f"a tree of tasks is at most {limits.deepest_tree} deep")
    if above and not ask.scope.within(above[-1].scope):
        raise Denied("the scope asked for is not within the parent's", parent=above[-1].id)
    name = new_task(now)
    bound = ask.bind and opener.instance is not None
    return Task(
        id=name,
        root=above[0].id if above else name,
        parent=above[-1].id if above else None,
        state=TaskState.ACTIVE,
        version=1,
        owner=opener.id,
        instance=opener.instance if bound else None,
        purpose=ask.purpose,
        scope=ask.scope,
        opened_at=now,
        deadline=ask.deadline if ask.deadline is not None else now + limits.longest_task,
        heartbeat=ask.heartbeat,
        heard_at=now,
        key=ask.key,
    )


async def _insert(gate: Gate, task: Task, above: Sequence[Task], act: Act, decision: Decision) -> None:
    said = [
        Receipt(
            kind=ReceiptKind.DECIDED,
            at=task.opened_at,
            actor=str(task.owner),
            task=task.id,
            body=decided(act, decision),
        ),
        Receipt(
            kind=ReceiptKind.TASK_OPENED,
            at=task.opened_at,
            actor=str(task.owner),
            task=task.id,
            body={
                "purpose": task.purpose,
                "scope": task.scope.to_json(),
                "instance": task.instance,
                "parent": task.parent,
            },
        ),
    ]
    told = Event(
        kind=EventKind.TASK_OPENED, at=task.opened_at, task=task.id, root=task.root, body={"owner": str(task.owner)}
    )

    async def write(tx: Transaction) -> None:
        if above:
            await tasks.touch(tx, above[-1].id, above[-1].version, task.opened_at)
        if await tasks.count_live(tx, task.owner) >= gate.limits.most_live_tasks:
            raise Exhausted(f"`{task.owner}` has {gate.limits.most_live_tasks} live tasks, the most it may have")
        await tasks.insert(tx, task)
        await receipts.append(tx, gate.world.broker, *said)
        await events.append(tx, told)

    await gate.world.database.write(write)


async def beat(gate: Gate, asked: Asked, task: TaskId, held: Sequence[LeaseId]) -> tuple[Task, Sequence[LeaseId]]:
    """Hear from a task; the leases it lists count as received. Answers those of them that are over.

    Raises:
        NotFound: not the caller's task.
        Denied: it, or a task above it, has ended.
    """
    chain = await gate.proven(asked, task)
    if not all(above.is_live for above in chain):
        raise Denied(f"the task is `{chain[-1].state}`", state=chain[-1].state)
    await gate.world.database.write(lambda tx: tasks.beat(tx, task, asked.now))
    gone = await received_all(gate, chain[-1], held, asked.now)
    return chain[-1], gone


async def change(gate: Gate, asked: Asked, task: TaskId, event: TaskEvent, scope: Scope | None = None) -> Task:
    """Wait, resume, or narrow the scope. Raises NotPossible, Denied, Fenced."""
    chain = await gate.proven(asked, task)
    before, now = chain[-1], asked.now
    following = after(before.state, event)
    if scope is not None and not scope.within(before.scope):
        raise Denied("a task's scope can only be narrowed, the scope given is not within the present one")
    changed = replace(
        before,
        state=following,
        scope=scope if scope is not None else before.scope,
        version=before.version + 1,
        heard_at=now,
    )
    body = {"event": str(event), "state": str(following), "version": changed.version, "scope": changed.scope.to_json()}

    async def write(tx: Transaction) -> None:
        await tasks.touch(tx, before.id, before.version)
        await tasks.update(tx, changed, before.version)
        await receipts.append(
            tx,
            gate.world.broker,
            Receipt(kind=ReceiptKind.TASK_CHANGED, at=now, actor=str(asked.caller), task=task, body=body),
        )
        await events.append(tx, Event(kind=EventKind.TASK_CHANGED, at=now, task=task, root=before.root, body=body))

    await gate.world.database.write(write)
    gate.world.feed.set()
    gate.world.reaper.set()
    return changed


async def end(gate: Gate, asked: Asked, task: TaskId, event: TaskEvent, words: str | None) -> Task:
    """End a task and everything below it; idempotent. The draining follows by itself. Raises NotFound."""
    if isinstance(asked.caller, Workload):
        await gate.proven(asked, task)
        reason = EndReason.SAID_SO
    else:
        asked.demand(Verb.END_TASKS)
        reason, event = EndReason.OPERATOR, TaskEvent.CANCEL
    await end_task.end(
        gate.world, task, reason=reason, event=event, words=words, actor=str(asked.caller), now=asked.now
    )
    return await gate.world.database.read(lambda tx: tasks.get(tx, task))
