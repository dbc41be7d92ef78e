"""Open, beat, narrow, wait, end: what may be asked of a task by whoever proves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.lifecycle import end_task, told
from broker.model.act import Act, Action
from broker.model.caller import Verb, Workload
from broker.model.decision import Decision
from broker.model.event import EventKind
from broker.model.ids import LeaseId, TaskId, new_task
from broker.model.observed import Observation, Observed
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.scope import Scope
from broker.model.task import EndReason, Task, TaskEvent, TaskState, after
from broker.service.gate import Gate, refusal
from broker.service.leases import received_all
from broker.service.proofs import Asked
from broker.store import events, openings, receipts, tasks
from ca.errors import Denied, Exhausted, Malformed
from ca.runtime.database import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a caller asks for. `bind`: to the instance that opens it; `key`: a thumbprint to prove it with instead.

    `once` is the request's idempotency key with the digest of its body: the same again is the task it opened before.
    """

    purpose: str
    scope: Scope
    deadline: datetime | None
    heartbeat: timedelta | None
    bind: bool
    key: str | None
    parent: TaskId | None
    once: tuple[str, str] | None = None


async def open_task(gate: Gate, asked: Asked, ask: Opening) -> tuple[Task, Decision]:
    """Open a task.

    Raises:
        Refused: the policies deny it.
        Denied: the parent, or the caller's process, may not be given anything.
        Malformed: the deadline or the heartbeat is out of bounds, or an unbound task has no deadline or key.
        Exhausted: the tree is too deep, or its owner has too many live tasks.
        KeyReused: the idempotency key belongs to another request.
        Fenced: the parent changed meanwhile.
        ClockUntrusted, Unavailable: nothing is given now.
    """
    opener, now = asked.workload, asked.now
    gate.giving()
    above: Sequence[Task] = ()
    if ask.parent is not None:
        above = await gate.proven(asked, ask.parent)
        await gate.watch(above)
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
    task = await _insert(gate, task, above, opener, act, decision, ask.once)
    gate.world.feed.set()
    gate.world.name_soon(task)
    await _refuse_the_dead(gate, task)
    return task, decision


async def _refuse_the_dead(gate: Gate, task: Task) -> None:
    """The process may have ended after it was bound and before there was a task to end. Raises Denied."""
    if task.instance is None or gate.world.observer.observed(task.instance).state is not Observation.ENDED:
        return
    now = gate.world.clock.now()
    await end_task.end(gate.world, task.id, reason=EndReason.PROCESS_ENDED, now=now)
    raise Denied("the opener's process has ended")


async def _bind(gate: Gate, opener: Workload, ask: Opening) -> Observed:
    if not ask.bind or opener.instance is None:
        if ask.deadline is None:
            raise Malformed("a task that is bound to no process needs a deadline", key="deadline")
        if ask.key is None:
            raise Malformed("a task that is bound to no process needs a key to prove it with", key="key")
        return Observed(state=Observation.UNKNOWN, strength="none")
    observed = await gate.world.observer.bind(opener.instance)
    if observed.state is Observation.UNKNOWN:
        raise Malformed("nobody here watches processes, expected `bind: false` with a deadline and a key", key="bind")
    if observed.state is not Observation.LIVE:
        raise Denied(f"the opener's process is `{observed.state}`, expected one that is seen to live")
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


async def _insert(  # noqa: PLR0917 - the task, where it hangs, and what it stands on
    gate: Gate,
    task: Task,
    above: Sequence[Task],
    opener: Workload,
    act: Act,
    decision: Decision,
    once: tuple[str, str] | None,
) -> Task:
    said = [
        told.decision(opener, task.id, act, decision),
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
    announced = told.task_event(EventKind.TASK_OPENED, task, task.opened_at, owner=str(task.owner))

    async def write(tx: Transaction) -> Task:
        gate.giving()  # asking for the process took its time
        if above:
            await tasks.touch(tx, above[-1].id, above[-1].version, task.opened_at)
        if once is not None:
            known = await openings.claim(tx, opener, once[0], digest=once[1], task=task.id, now=task.opened_at)
            if known != task.id:
                return await tasks.get(tx, known)
        if await tasks.count_live(tx, task.owner) >= gate.limits.most_live_tasks:
            raise Exhausted(f"`{task.owner}` has {gate.limits.most_live_tasks} live tasks, the most it may have")
        await tasks.insert(tx, task)
        await receipts.append(tx, gate.world.broker, *said)
        await events.append(tx, announced)
        return task

    return await gate.world.database.write(write)


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
    """Wait, resume, or narrow the scope; what was decided under the wider one is fenced, below the task too.

    Raises:
        NotFound: not the caller's task.
        NotPossible, Denied, Fenced.
    """
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

    async def write(tx: Transaction) -> None:
        await tasks.touch(tx, before.id, before.version)
        await tasks.update(tx, changed, before.version)
        below = await tasks.outdate_below(tx, before.id) if scope is not None else ()
        said = [(changed, {"event": str(event), "scope": changed.scope.to_json()})]
        said += [(link, {"event": str(event), "above": before.id}) for link in below]
        await receipts.append(tx, gate.world.broker, *(_changed(link, asked, body) for link, body in said))
        await events.append(tx, *(told.task_event(EventKind.TASK_CHANGED, link, now, **body) for link, body in said))

    await gate.world.database.write(write)
    gate.world.feed.set()
    gate.world.reaper.set()
    return changed


def _changed(task: Task, asked: Asked, body: Mapping[str, object]) -> Receipt:
    whole = {**body, "state": str(task.state), "version": task.version}
    return Receipt(kind=ReceiptKind.TASK_CHANGED, at=asked.now, actor=str(asked.caller), task=task.id, body=whole)


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
