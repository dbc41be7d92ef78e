"""/v1/tasks: open, show, beat, change, end."""

from __future__ import annotations

import hashlib

from broker.api.door import PageQuery, asked, gate, idempotency_key
from broker.model.ids import LeaseId, TaskId, parse_task
from broker.service import reading, tasks
from broker.wire.reports import ReportTold
from broker.wire.tasks import (
    Beat,
    EndTask,
    Heartbeat,
    OpenTask,
    StateChange,
    TaskOpened,
    TaskPage,
    TaskTold,
    TaskTree,
)
from ca.runtime.web import Call, Route


class TaskQuery(PageQuery):
    """Which tasks: all, or only those that live."""

    live: bool = False


async def open_task(call: Call) -> TaskOpened:
    """Open a task. A retry with the same `Idempotency-Key` is answered with the task it opened before."""
    ask: OpenTask = call.body
    who, key = asked(call), idempotency_key(call)
    opening = tasks.Opening(
        purpose=ask.purpose,
        scope=ask.scope.to_scope(),
        deadline=ask.ends_at(who.now),
        heartbeat=ask.heartbeat,
        bind=ask.bind,
        key=ask.key.thumbprint if ask.key is not None else None,
        parent=TaskId(ask.parent) if ask.parent is not None else None,
        once=None if key is None else (key, hashlib.sha256(ask.model_dump_json().encode()).hexdigest()),
    )
    task, decision = await tasks.open_task(gate(call), who, opening)
    return TaskOpened(
        task=TaskTold.of(task), decision=decision.id, policies=list(decision.policies), reason=decision.reason
    )


async def list_tasks(call: Call) -> TaskPage:
    """Tasks in the order of their birth; a workload sees those of its own trees."""
    query: TaskQuery = call.parameters
    after = parse_task(query.after) if query.after is not None else None
    found = await reading.task_page(gate(call), asked(call), after, query.limit, live=query.live)
    following = found[-1].id if len(found) == query.limit else None
    return TaskPage(items=[TaskTold.of(task) for task in found], next=following)


async def show_task(call: Call) -> TaskTold:
    """One task."""
    chain = await gate(call).readable(asked(call), _task(call))
    return TaskTold.of(chain[-1])


async def show_tree(call: Call) -> TaskTree:
    """A task and everything below it."""
    return TaskTree.of(await reading.tree(gate(call), asked(call), _task(call)))


async def show_report(call: Call) -> ReportTold:
    """The closing report."""
    return ReportTold.of(await reading.report(gate(call), asked(call), _task(call)))


async def beat(call: Call) -> Beat:
    """Hear from a task; the leases listed count as received."""
    ask: Heartbeat = call.body
    held, who = [LeaseId(lease) for lease in ask.leases], asked(call)
    task, gone = await tasks.beat(gate(call), who, _task(call), held)
    heartbeat = task.heartbeat
    return Beat(
        state=task.state,
        version=task.version,
        next_by=who.now + heartbeat if heartbeat is not None else None,
        acknowledged=[lease for lease in held if lease not in gone],
    )


async def change(call: Call) -> TaskTold:
    """Wait, resume, narrow."""
    ask: StateChange = call.body
    scope = ask.scope.to_scope() if ask.scope is not None else None
    return TaskTold.of(await tasks.change(gate(call), asked(call), _task(call), ask.event, scope))


async def end(call: Call) -> TaskTold:
    """End a task; twice is once. What it was given is taken back by itself: `…/report` says how far that is."""
    ask: EndTask = call.body
    return TaskTold.of(await tasks.end(gate(call), asked(call), _task(call), ask.event, ask.words))


def _task(call: Call) -> TaskId:
    return parse_task(call.path("id"))


ROUTES = (
    Route("POST", "/v1/tasks", open_task, summary="Open a task", body=OpenTask, answer=TaskOpened, status=201),
    Route("GET", "/v1/tasks", list_tasks, summary="List tasks", query=TaskQuery, answer=TaskPage),
    Route("GET", "/v1/tasks/{id}", show_task, summary="Show a task", answer=TaskTold),
    Route("GET", "/v1/tasks/{id}/tree", show_tree, summary="Show a task and those below it", answer=TaskTree),
    Route("GET", "/v1/tasks/{id}/report", show_report, summary="Show the closing report", answer=ReportTold),
    Route("POST", "/v1/tasks/{id}/heartbeat", beat, summary="Say that a task lives", body=Heartbeat, answer=Beat),
    Route("POST", "/v1/tasks/{id}/state", change, summary="Wait, resume or narrow", body=StateChange, answer=TaskTold),
    Route("POST", "/v1/tasks/{id}/end", end, summary="End a task", body=EndTask, answer=TaskTold),
)
