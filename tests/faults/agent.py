"""What stories are told with: the agent's requests, and hands on the outside that no broker has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import asyncpg

from broker.engines.postgres.scram import verifier
from broker.errors import NotPossible
from broker.lifecycle import rotate
from broker.lifecycle.obtain import HandOver
from broker.model.caller import Workload
from broker.model.ids import InstanceId
from broker.model.scope import Scope, Sensitivity, patterns
from broker.model.task import Task, TaskEvent
from broker.service import credentials, leases, tasks
from broker.service.proofs import Asked, Shown
from broker.store import sealed
from broker.wire.credentials import AskCredential
from ca.errors import Problem
from ca.spiffe.id import SpiffeId
from fakes.accounts import FakeAccounts
from faults.broker_process import ACCOUNT, DATABASE, INSTANCE, KEYS, SHELF, Broker, kept_of

READ, WRITE = f"{DATABASE}/readonly", f"{DATABASE}/readwrite"
AGENT = SpiffeId.parse("spiffe://example.org/agents/clerk")
GUARD = 60.0


def asked(broker: Broker, instance: InstanceId | None = INSTANCE) -> Asked:
    """The agent's next request, from one of its processes."""
    now = broker.clock.now()
    caller = Workload(id=AGENT, instance=instance, not_after=now + timedelta(hours=1))
    return Asked(caller=caller, shown=Shown(header=None, method="POST", path="/v1"), now=now)


async def open_task(broker: Broker, *roles: str, parent: Task | None = None, lasts: float = 3600.0) -> Task:
    """Through the gate, bound to the agent's process."""
    ask = asked(broker)
    wish = tasks.Opening(
        purpose="to be killed in the middle of it",
        scope=Scope(roles=patterns(roles or ("*",)), sensitivity=Sensitivity.RESTRICTED),
        deadline=ask.now + timedelta(seconds=lasts),
        heartbeat=None,
        bind=True,
        key=None,
        parent=None if parent is None else parent.id,
    )
    return (await tasks.open_task(broker.gate, ask, wish))[0]


async def obtain(broker: Broker, task: Task, role: str = READ, key: str | None = None) -> HandOver:
    """Ask, and tell the outside what was handed over."""
    wish = AskCredential(role=role, confidence=80)
    handed, _ = await credentials.ask(broker.gate, asked(broker), task.id, wish, key)
    broker.hand(handed.issued, handed.lease.handle.name)
    return handed


async def hold(broker: Broker, task: Task, role: str = READ) -> HandOver:
    """Ask, and take it."""
    return await take(broker, await obtain(broker, task, role))


async def take(broker: Broker, handed: HandOver) -> HandOver:
    """Acknowledge, tell the outside, and log in if there is a door."""
    await leases.received(broker.gate, asked(broker), handed.lease.id)
    if handed.lease.handle.target != KEYS:
        secret = kept_of(handed.issued)
        broker.note("held", user=handed.lease.handle.name, password=secret)
        if broker.hands.enters:
            await broker.log_in(handed.lease.handle.name, secret)
    return handed


async def lend(broker: Broker, task: Task) -> HandOver:
    """Check the account out, take it, and log in."""
    handed = await obtain(broker, task, f"{SHELF}/{ACCOUNT}")
    secret = handed.issued.secret["password"].reveal()
    broker.note("lent", user=handed.lease.handle.name, account=ACCOUNT, password=secret)
    await leases.received(broker.gate, asked(broker), handed.lease.id)
    await broker.log_in(ACCOUNT, secret)
    return handed


def a_target_that_refuses(broker: Broker, name: str) -> None:
    """Its kind can change passwords, and it won't."""
    accounts = FakeAccounts(broker.clock)
    accounts.fail("change_password", error=NotPossible("a restart would bring the old one back"), times=100)
    broker.world.engines[name] = accounts  # type: ignore[index]
    broker.world.targets[name] = broker.world.targets[KEYS]  # type: ignore[index]


async def an_account(broker: Broker) -> None:
    """Somebody made one long ago, and lets the broker's user see to it."""
    async with outside(broker) as owner:
        await owner.execute(f"CREATE ROLE {ACCOUNT} LOGIN")
        await owner.execute(f"GRANT {ACCOUNT} TO {broker.case.room['admin']} WITH ADMIN OPTION")


async def end(broker: Broker, task: Task) -> None:
    """The agent says that it is done."""
    await tasks.end(broker.gate, asked(broker), task.id, TaskEvent.FINISH, "done")


async def refused(work: Awaitable[Any]) -> Problem:
    """What was answered instead."""
    try:
        await work
    except Problem as problem:
        return problem
    raise AssertionError("it was not refused")


@asynccontextmanager
async def outside(broker: Broker) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The server's owner, in a connection the broker knows nothing of."""
    connection = await asyncpg.connect(**broker.case.superuser)
    try:
        yield connection
    finally:
        await connection.close()


async def seen(broker: Broker, query: str, *arguments: Any) -> Any:
    """Wait until the server's owner sees something."""
    async with asyncio.timeout(GUARD), outside(broker) as owner:
        while not (found := await owner.fetchval(query, *arguments)):
            await broker.clock.sleep(0.005)
        return found


WAITING = """
SELECT pid FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE '%CREATE ROLE%' AND pid <> pg_backend_pid()"""


@asynccontextmanager
async def creating(broker: Broker, task: Task, answers: list[Any]) -> AsyncIterator[int]:
    """A create is being executed, and goes no further; the backend that is at it."""
    async with outside(broker) as owner, asyncio.TaskGroup() as group:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE pg_catalog.pg_authid IN SHARE MODE")

        async def ask() -> None:
            try:
                answers.append(await obtain(broker, task))
            except Problem as problem:
                answers.append(problem)

        group.create_task(ask())
        yield int(await seen(broker, WAITING))
        await lock.rollback()


@asynccontextmanager
async def nobody_there(broker: Broker) -> AsyncIterator[None]:
    """The target lets the broker in no more, and cuts it off."""
    admin = broker.case.room["admin"]
    async with outside(broker) as owner:
        await owner.execute(f"ALTER ROLE {admin} NOLOGIN")
        await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", admin)
    await seen(broker, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)", admin)
    yield
    await admit(broker)


async def admit(broker: Broker) -> None:
    """The target is well, whatever was done to it; what stories do to others is over when they are."""
    if broker.case.room.get("kind", "postgres") != "postgres":
        return
    group = broker.case.room["groups"][1]
    mine, database = rotate.own(broker.world, DATABASE), broker.world.database
    resting = [await database.read(lambda tx, n=name: sealed.names(tx, n)) for name in (mine.current, mine.candidate)]  # type: ignore[misc]
    async with outside(broker) as owner:
        if not any(resting):  # what the settings name counts
            made = verifier(broker.case.room["admin_password"], 4096)
            await owner.execute(f"ALTER ROLE {broker.case.room['admin']} PASSWORD '{made}'")
        await owner.execute(f"ALTER ROLE {broker.case.room['admin']} LOGIN")
        with suppress(asyncpg.UndefinedObjectError):
            await owner.execute(f"ALTER ROLE {group}_away RENAME TO {group}")


async def plant(broker: Broker, owner: asyncpg.Connection[Any], name: str) -> None:
    """A principal that may log in."""
    broker.note("planted", user=name)
    await owner.execute(f"CREATE ROLE {name} LOGIN IN ROLE {broker.case.room['groups'][0]}")
