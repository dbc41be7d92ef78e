"""What a broker goes through before, while and after it is killed: each story reaches other fail-points.

    whole_life      open, child, obtain, re-issue, acknowledge, renew, give back, narrow, wait, end; denied ones too
    process_gone    not seen to live, then ended; another task past its deadline; a secret never acknowledged
    unanswered      a create whose answer is lost; a task that ends while its secret is being made
    target_away     nobody answers at a create, a renewal, an ending; a create that is refused
    strangers       a create that arrived after everybody gave it up, principals nobody knows, a check, an adoption
    store_full      a task that ends while the store can't take it
    not_revocable   a secret that lives until its last second, one that may have been made over what was there
    own_identity    a task's own identity: given, its answer lost, the server away at the end, ended while it is given
    lent_account    an account somebody else made: checked out and in, its target away at either
    own_password    the password we log in with ourselves is rotated, its target away in the middle of it
    neighbours      two targets that are one server, swept again and again

    one_secret      ask for one, whatever comes of it; somebody outside holds it up
    outage          the target dies at a create or at an ending, and is back later
    alive           loops that tick by themselves until nothing is open

    restart         the first ticks and one sweep
    settle          a minute later: ticks, and the next sweep
    finish          every task ends; ticks until nothing is open

A story is the broker and its agent in one process; the asserts in it are about the story, never about the law: that is
the oracle's business, outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from broker.errors import OutcomeUnknown
from broker.lifecycle import configured, disown, end_task, reconcile, rotate
from broker.model.lease import LeaseState
from broker.model.observed import Observation
from broker.model.scope import Scope, patterns
from broker.model.task import EndReason, Task, TaskEvent
from broker.service import leases, tasks
from broker.store import leases as lease_rows
from broker.store import sealed
from broker.store import tasks as task_rows
from ca.errors import Problem
from ca.runtime import failpoint
from ca.runtime.process import background
from faults.agent import (
    GUARD,
    READ,
    WRITE,
    a_target_that_refuses,
    admit,
    an_account,
    asked,
    creating,
    end,
    hold,
    lend,
    nobody_there,
    obtain,
    open_task,
    outside,
    plant,
    refused,
    seen,
    take,
)
from faults.broker_process import ANNEX, DATABASE, INSTANCE, KEYS, SEAL, Broker, nothing_grows


async def whole_life(broker: Broker) -> None:
    """Everything goes well."""
    gate = broker.gate
    root = await open_task(broker)
    child = await open_task(broker, READ, parent=root)
    await obtain(broker, root, key="k")
    again = await take(broker, await obtain(broker, root, key="k"))
    await refused(obtain(broker, root, key="k"))
    writing = await obtain(broker, root, WRITE)
    await tasks.beat(gate, asked(broker), root.id, [writing.lease.id])
    await hold(broker, child)
    given = await hold(broker, root)
    await obtain(broker, child)  # never acknowledged
    await refused(obtain(broker, child, WRITE))
    broker.clock.leap(31)
    await broker.tick()
    await leases.renew(gate, asked(broker), again.lease.id)
    await leases.give_back(gate, asked(broker), given.lease.id)
    await broker.tick()
    await tasks.change(gate, asked(broker), root.id, TaskEvent.NARROW, narrow(root))
    await broker.tick()
    await tasks.change(gate, asked(broker), root.id, TaskEvent.WAIT)
    await tasks.change(gate, asked(broker), root.id, TaskEvent.RESUME)
    await end(broker, root)
    await broker.tick()
    await broker.sweep_once()


def narrow(task: Task) -> Scope:
    """Reading only."""
    return Scope(roles=patterns((READ,)), sensitivity=task.scope.sensitivity)


async def process_gone(broker: Broker) -> None:
    """The agent's process is no longer seen, then it is dead; its other task ran out of time before."""
    late = await open_task(broker, lasts=20.0)
    await hold(broker, late)
    task = await open_task(broker)
    await hold(broker, task)
    await obtain(broker, task)
    broker.observer.states[INSTANCE] = Observation.UNOBSERVED
    broker.clock.leap(31)
    await broker.tick()
    broker.observer.states[INSTANCE] = Observation.ENDED
    broker.case.ended.write_text(INSTANCE)
    await broker.tick()
    await broker.sweep_once()


async def unanswered(broker: Broker) -> None:
    """Nobody knows whether it happened; and one that happened for nobody."""
    task, answers = await open_task(broker), []  # type: ignore[var-annotated]
    await hold(broker, task)
    async with creating(broker, task, answers) as backend, outside(broker) as owner:
        await owner.execute("SELECT pg_terminate_backend($1)", backend)
        await seen(broker, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", backend)
    assert isinstance(answers.pop(), OutcomeUnknown)
    broker.clock.leap(2)
    await broker.tick()
    second = await open_task(broker)
    async with creating(broker, second, answers):
        await end(broker, second)
    assert isinstance(answers.pop(), Problem)
    broker.clock.leap(16)
    await broker.tick()
    await end(broker, task)
    await broker.tick()
    await broker.sweep_once()


async def target_away(broker: Broker) -> None:
    """Whatever is asked of it fails, until it is back."""
    task, other = await open_task(broker), await open_task(broker)
    await hold(broker, task)
    lost = await hold(broker, other)
    async with nobody_there(broker):
        broker.clock.leap(31)
        await broker.tick()  # renewals
        await end(broker, other)
        await broker.tick()
        await refused(obtain(broker, task))
        what, now = f"lease:{lost.lease.id}", broker.clock.now()
        await disown.propose(broker.world, what, "ada", now)
        await disown.give_up(broker.world, what, "bob", now)  # what is left there is the sweep's, once it is back
    broker.clock.leap(16)
    await broker.tick()
    async with outside(broker) as owner:
        await owner.execute("ALTER ROLE {0} RENAME TO {0}_away".format(broker.case.room["groups"][1]))
    await refused(obtain(broker, task, WRITE))
    await admit(broker)
    broker.clock.leap(16)
    await broker.tick()
    await end(broker, task)
    await broker.tick()


async def strangers(broker: Broker) -> None:
    """Principals with our prefix that no open lease stands for."""
    task = await open_task(broker)
    await hold(broker, task)
    closed = await hold(broker, task)
    await leases.give_back(broker.gate, asked(broker), closed.lease.id)
    await broker.tick()
    await configured.check(broker.world, DATABASE)
    await reconcile.adopt(broker.world, DATABASE, "ada", broker.clock.now())
    async with outside(broker) as owner:
        await plant(broker, owner, closed.lease.handle.name)
        await plant(broker, owner, f"{broker.world.prefix}stranger")
        await broker.sweep_once()
        await plant(broker, owner, f"{broker.world.prefix}passer")
        await broker.sweep_once()
        await owner.execute(f"DROP ROLE IF EXISTS {broker.world.prefix}passer")
        await broker.sweep_once()


async def store_full(broker: Broker) -> None:
    """Its access ends all the same; what happened is written when there is room again.

    Killed before there is, the broker forgets what it was told: the principal is disabled and its lease still active.
    """
    task, other = await open_task(broker), await open_task(broker)
    done, lost = await hold(broker, task), await hold(broker, other)
    for handed in (done, lost):
        broker.note("released", user=handed.lease.handle.name)
    with nothing_grows():
        await end(broker, task)
        await refused(obtain(broker, other))
        with suppress(Problem):
            await leases.give_back(broker.gate, asked(broker), lost.lease.id)
        await broker.tick()
    await broker.tick()
    await broker.sweep_once()


async def not_revocable(broker: Broker) -> None:
    """It is `revoking` until then."""
    task = await open_task(broker)
    await hold(broker, task, f"{KEYS}/signing")
    broker.world.engines[KEYS].fail("create", after=True)  # type: ignore[attr-defined]
    await refused(obtain(broker, task, f"{KEYS}/signing"))  # an upsert: it stays in doubt until it can't come any more
    await broker.tick()
    await hold(broker, task)
    await end(broker, task)
    await broker.tick()
    broker.clock.leap(61)
    await broker.tick()
    await broker.sweep_once()


async def neighbours(broker: Broker) -> None:
    """Two targets that are one server: what one sees of the other is no stranger."""
    task = await open_task(broker)
    await hold(broker, task)
    await hold(broker, task, f"{ANNEX}/readonly")
    given = await hold(broker, task, f"{ANNEX}/readwrite")
    await leases.give_back(broker.gate, asked(broker), given.lease.id)
    await broker.tick()
    for _ in range(3):
        await broker.sweep_once()


async def lent_account(broker: Broker) -> None:
    """It has one holder at a time, and a password nobody knows when it has none."""
    await an_account(broker)
    task, other = await open_task(broker), await open_task(broker)
    given = await lend(broker, task)
    await refused(lend(broker, other))
    await leases.give_back(broker.gate, asked(broker), given.lease.id)
    await broker.tick()
    await lend(broker, other)
    async with nobody_there(broker):
        await end(broker, other)
        await broker.tick()
        await refused(lend(broker, task))
    broker.clock.leap(16)
    await broker.tick()
    await lend(broker, task)
    broker.clock.leap(61)
    await broker.tick()
    await end(broker, task)
    await broker.tick()


async def own_password(broker: Broker) -> None:
    """What is held meanwhile is ended afterwards, with the new one; the annex is left behind with the old one."""
    task = await open_task(broker)
    await hold(broker, task)
    await rotate.rotate(broker.world, DATABASE, broker.clock.now())
    async with nobody_there(broker):
        await refused(rotate.rotate(broker.world, DATABASE, broker.clock.now()))
    broker.clock.leap(16)
    await broker.tick()
    found = await broker.world.database.read(
        lambda tx: sealed.newest(tx, SEAL, rotate.own(broker.world, DATABASE).current)
    )
    assert found is not None
    assert found[0] == 2
    broker.note("rotated", user=broker.case.room["admin"], password=found[1].reveal())
    a_target_that_refuses(broker, "refusing")
    await refused(rotate.rotate(broker.world, "refusing", broker.clock.now()))
    await rotate.forget(broker.world, DATABASE, broker.clock.now(), actor="operator:eve")
    await admit(broker)
    broker.clock.leap(16)
    await end(broker, task)
    await broker.tick()


async def own_identity(broker: Broker) -> None:
    """It comes by itself, survives a narrower scope, and goes with the task."""
    task = await open_task(broker)
    await broker.tick()
    await tasks.change(broker.gate, asked(broker), task.id, TaskEvent.NARROW, narrow(task))
    await broker.tick()
    broker.registry.lost = 1
    other = await open_task(broker)
    for _ in range(4):
        await broker.tick()
        broker.clock.leap(12)
    broker.registry.down = True
    await end(broker, task)
    await broker.tick()
    broker.registry.down = False
    broker.clock.leap(16)
    await broker.tick()
    await end(broker, other)
    await broker.tick()
    await broker.sweep_once()


async def one_secret(broker: Broker) -> None:
    """Ask for one, whatever comes of it; `frozen` tests hold it up in the middle."""
    task = await open_task(broker)
    try:
        await hold(broker, task)
        failpoint.reach("story.held")
        broker.note("outcome", of="obtained")
    except Problem as problem:
        broker.note("outcome", of=type(problem).__name__, said=str(problem))


async def outage(broker: Broker) -> None:
    """Somebody outside kills the target while this is stopped somewhere, and starts it again at `story.waiting`."""
    task = await open_task(broker)
    await hold(broker, task)
    with suppress(Problem):
        await obtain(broker, task)
    await end(broker, task)
    for _ in range(3):
        await broker.tick()
        broker.clock.leap(20)
    failpoint.reach("story.waiting")
    await drained(broker)
    await broker.sweep_once()


async def alive(broker: Broker) -> None:
    """A broker as it really runs: loops that tick by themselves, until a point stops or ends it."""
    async with (
        background("reaper", broker.reaper.tick, every=0.05, clock=broker.clock, wake=broker.world.reaper),
        background("sweep", broker.sweep.tick, every=60.0, clock=broker.clock),
    ):
        async with asyncio.timeout(GUARD):
            while await broker.world.database.read(lambda tx: lease_rows.page(tx, after=None, limit=1, open_only=True)):
                await broker.clock.sleep(0.02)


async def restart(broker: Broker) -> None:
    """What any broker does first; the outside is well again."""
    await admit(broker)
    await broker.recover()


async def settle(broker: Broker) -> None:
    """A minute has passed."""
    for _ in range(4):
        broker.clock.leap(15)
        await broker.tick()
    await broker.sweep_once()
    await broker.tick()


async def finish(broker: Broker) -> None:
    """Nothing may be left; the outside may have to come back first."""
    for task in await broker.world.database.read(task_rows.live):
        await end_task.end(broker.world, task.id, reason=EndReason.SHUTDOWN, now=broker.clock.now())
    await broker.tick()
    failpoint.reach("story.waiting")
    await drained(broker)
    await broker.sweep_once()


async def drained(broker: Broker) -> None:
    """Tick until nothing is open."""
    for _ in range(120 if broker.case.lasting else 60):  # a session of AWS lives for a quarter of an hour
        page = await broker.world.database.read(lambda tx: lease_rows.page(tx, after=None, limit=1000, open_only=True))
        if not page:
            return
        assert all(lease.state is not LeaseState.INTENDED or lease.id in broker.world.in_flight for lease in page)
        broker.clock.leap(10)
        await broker.tick()
    raise AssertionError(f"still open: {[(lease.state, lease.trouble) for lease in page]}")


STORIES: dict[str, Callable[[Broker], Awaitable[None]]] = {
    story.__name__: story
    for story in (
        whole_life, process_gone, unanswered, target_away, strangers, store_full, not_revocable, own_identity,
        lent_account, own_password, neighbours, one_secret, outage, alive, restart, settle, finish,
    )
}  # fmt: skip
TO_BE_KILLED = tuple(STORIES)[:-6]
AFTERWARDS = ("restart", "settle", "finish")
