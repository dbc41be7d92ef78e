"""A load that is drawn by chance: agents that do one thing after the other, whatever the broker answers.

They open tasks and children, ask, ask again, acknowledge, log in, renew, give back, narrow, wait, end, have their
processes die; the wire to the target is cut before or after a word, or is down; strangers are planted; the disk is
full; the clock leaps. What an agent is told it notes, for the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random  # noqa: TID251 - seeded: the same seed is the same load
from typing import Any

from broker.errors import NotPossible
from broker.lifecycle import configured, reconcile, rotate
from broker.model.caller import Operator, Verb
from broker.model.ids import InstanceId
from broker.model.lease import Lease
from broker.model.observed import Observation
from broker.model.scope import Scope, Sensitivity, patterns
from broker.model.task import Task, TaskEvent, TaskState
from broker.service import credentials, leases, tasks
from broker.service.proofs import Asked
from broker.store import leases as lease_rows
from broker.store import tasks as task_rows
from broker.wire.credentials import AskCredential
from ca.errors import Problem
from fakes.wire_tap import WireTap
from faults.agent import asked
from faults.broker_process import ACCOUNT, KEYS, SHELF, Broker, kept_of, nothing_grows


@dataclass
class Load:
    """What several agents do; each step stands by itself."""

    broker: Broker
    luck: Random
    aim: str
    alone: bool
    """Whether this agent may do something to the machine: nobody else is hit by it."""
    dead: set[str] = field(default_factory=set)

    async def agent(self, steps: int) -> None:
        """One step after the other; to be refused is no news."""
        names = list(WEIGHTS)
        weights = [WEIGHTS[name] * (8 if name in leads_to(self.aim) else 1) for name in names]
        for _ in range(steps):
            (step,) = self.luck.choices(names, weights)
            try:
                await getattr(self, step)()
            except Problem:
                continue

    async def tasks(self) -> Sequence[Task]:
        found = await self.broker.world.database.read(task_rows.live)
        return [task for task in found if task.instance is not None]

    async def task(self) -> Task:
        """Any live one."""
        known = await self.tasks()
        return self.luck.choice(known) if known else await self.open()

    async def lease(self) -> tuple[Lease, Task] | None:
        """Any open one of a live task."""
        unit = lambda tx: lease_rows.page(tx, after=None, limit=1000, open_only=True)  # noqa: E731
        tasks_ = {task.id: task for task in await self.tasks()}
        known = [lease for lease in await self.broker.world.database.read(unit) if lease.task in tasks_]
        if not known:
            return None
        lease = self.luck.choice(known)
        return lease, tasks_[lease.task]

    def by(self, task: Task) -> Asked:
        return asked(self.broker, task.instance)

    async def open(self) -> Task:
        """A task of some process of the agent's, now and then below another."""
        known = list(await self.tasks())
        if len(known) > 8:
            return self.luck.choice(known)
        parent = self.luck.choice(known) if known and self.luck.random() < 0.4 else None
        process = InstanceId(f"{self.luck.randrange(1, 6) + 100 * len(self.dead):032x}")
        ask = self.by(parent) if parent is not None else asked(self.broker, process)
        wish = tasks.Opening(
            purpose="to be killed",
            scope=Scope(roles=patterns(("*",)), sensitivity=Sensitivity.RESTRICTED) if parent is None else parent.scope,
            deadline=ask.now + timedelta(seconds=self.luck.choice((30, 600, 3600))),
            heartbeat=self.luck.choice((None, None, timedelta(minutes=5))),
            bind=True,
            key=None,
            parent=None if parent is None else parent.id,
        )
        opened, _ = await tasks.open_task(self.broker.gate, ask, wish)
        self.broker.note("opened", task=opened.id)
        return opened

    async def secret(self) -> None:
        """Ask for one; lose the answer and ask again; take it; log in."""
        task = await self.task()
        key, role = f"k{self.luck.getrandbits(40):x}", self.luck.choice(sorted(self.broker.world.roles))
        handed = await self.ask(task, role, key)
        if handed.lease.handle.target == SHELF:
            password = handed.issued.secret["password"].reveal()
            self.broker.note("lent", user=handed.lease.handle.name, account=ACCOUNT, password=password)
        while handed.lease.handle.target != SHELF and self.luck.random() < (0.6 if "reissue" in self.aim else 0.15):
            handed = await self.ask(task, role, key)
        if self.luck.random() < 0.2:
            return  # never acknowledged
        await leases.received(self.broker.gate, self.by(task), handed.lease.id)
        if handed.lease.handle.target not in {KEYS, SHELF}:
            user, password = handed.lease.handle.name, kept_of(handed.issued)
            self.broker.note("held", user=user, password=password)
            if self.luck.random() < 0.25:
                await self.log_in(user, password)

    async def ask(self, task: Task, role: str, key: str) -> Any:
        wish = AskCredential(role=role, confidence=80)
        handed, _ = await credentials.ask(self.broker.gate, self.by(task), task.id, wish, key)
        self.broker.hand(handed.issued, handed.lease.handle.name)
        return handed

    async def log_in(self, user: str, password: str) -> None:
        try:
            await self.broker.log_in(user, password)
        except Exception as refusal:  # noqa: BLE001 - it may be over by now: the oracle knocks, this is an agent
            self.broker.note("refused", user=user, why=type(refusal).__name__)

    async def renew(self) -> None:
        if found := await self.lease():
            await leases.renew(self.broker.gate, self.by(found[1]), found[0].id)

    async def give_back(self) -> None:
        if found := await self.lease():
            await leases.give_back(self.broker.gate, self.by(found[1]), found[0].id)
            self.broker.note("given", user=found[0].handle.name)

    async def beat(self) -> None:
        task = await self.task()
        held = await self.broker.world.database.read(lambda tx: lease_rows.by_task(tx, task.id))
        await tasks.beat(self.broker.gate, self.by(task), task.id, [lease.id for lease in held])

    async def narrow(self) -> None:
        task = await self.task()
        names = [role for role in sorted(self.broker.world.roles) if self.luck.random() < 0.7]
        scope = Scope(roles=patterns(tuple(names) or ("keys/signing",)), sensitivity=task.scope.sensitivity)
        await tasks.change(self.broker.gate, self.by(task), task.id, TaskEvent.NARROW, scope)

    async def wait(self) -> None:
        task = await self.task()
        event = TaskEvent.RESUME if task.state is TaskState.WAITING else TaskEvent.WAIT
        await tasks.change(self.broker.gate, self.by(task), task.id, event)

    async def end(self) -> None:
        """The agent says that it is done, or an operator that it is."""
        task = await self.task()
        by = self.by(task)
        if self.luck.random() < 0.3:
            by = Asked(caller=Operator(name="root", verbs=frozenset(Verb)), shown=by.shown, now=by.now)
        await tasks.end(self.broker.gate, by, task.id, TaskEvent.FINISH, "done")
        if task.id not in self.broker.world.unrecorded:
            self.broker.note("ended", task=task.id)

    async def process_ends(self) -> None:
        """One of the agent's processes is dead."""
        task = await self.task()
        assert task.instance is not None
        self.dead.add(task.instance)
        with self.broker.case.ended.open("a") as file:
            file.write(f"{task.instance}\n")
        self.broker.observer.states[task.instance] = Observation.ENDED

    async def leap(self) -> None:
        self.broker.clock.leap(self.luck.choice((2, 11, 31, 31, 61)))

    async def sweep(self) -> None:
        await self.broker.sweep_once()

    async def lost_identity(self) -> None:
        self.broker.registry.lost = 1
        await self.open()
        self.broker.clock.leap(12)

    async def no_identities(self) -> None:
        """The attestor server is away for a while."""
        self.broker.registry.down = True
        await self.broker.clock.sleep(0.05)
        self.broker.registry.down = False

    def tap(self) -> WireTap:
        """Of a target that is somewhere. Raises NotPossible."""
        if not self.broker.taps:
            raise NotPossible("nothing is reached, and nothing can be cut")
        return self.luck.choice(list(self.broker.taps.values()))

    async def cut(self) -> None:
        """The next word to the target, or the one after, is lost; or it is heard, and its answer is lost."""
        tap = self.tap()
        for _ in range(self.luck.choice((1, 1, 2))):
            tap.cut = (b"", self.luck.random() < 0.6)
            await self.secret()
        tap.cut = None

    async def away(self) -> None:
        """Nobody is there; then somebody is."""
        tap = self.tap()
        tap.down = True
        tap.cut_all()
        for step in (self.give_back, self.end, self.secret)[: self.luck.randrange(1, 4)]:
            try:
                await step()
            except Problem:
                continue
        await self.broker.clock.sleep(0.02)
        tap.down = False
        self.broker.clock.leap(16)

    async def stranger(self) -> None:
        """Somebody else's hand makes a principal with our prefix: one nobody knows, or one that is over."""
        known = await self.broker.world.database.read(lambda tx: lease_rows.page(tx, after=None, limit=1000))
        over = [lease.handle.name for lease in known if lease.is_closed and lease.handle.target in self.broker.taps]
        fresh = f"{self.broker.world.prefix}stranger{self.luck.getrandbits(32):08x}"
        name = self.luck.choice([fresh, *over[-1:]])
        self.broker.note("planted", user=name)
        await self.broker.hands.plant(name)
        await self.broker.sweep_once()
        if self.luck.random() < 0.3:
            await self.broker.hands.remove(name)
        await self.broker.sweep_once()

    async def full(self) -> None:
        """Nothing can be written while something ends; nobody is told that it did."""
        if not self.alone:
            return
        task = await self.task()
        for below in [one for one in await self.tasks() if one.root == task.root]:
            self.broker.note("released", task=below.id)  # whatever it holds, and is being given
        with nothing_grows():
            await tasks.end(self.broker.gate, self.by(task), task.id, TaskEvent.FINISH, "done")
        await self.broker.tick()

    async def check(self) -> None:
        self.broker.note("probing")
        await configured.check(self.broker.world, self.luck.choice(list(self.broker.case.targets)))

    async def rotate(self) -> None:
        """The password the broker logs in with itself, where no other target has the same account."""
        if len(self.broker.taps) == 1:
            (target,) = self.broker.taps
            await rotate.rotate(self.broker.world, target, self.broker.clock.now())

    async def adopt(self) -> None:
        there = self.luck.choice(list(self.broker.case.targets))
        await reconcile.adopt(self.broker.world, there, "ada", self.broker.clock.now())


WEIGHTS = {
    "open": 3, "secret": 12, "renew": 2, "give_back": 3, "beat": 1, "narrow": 2, "wait": 1, "end": 3,
    "process_ends": 0.5, "leap": 2, "sweep": 1, "lost_identity": 0.5, "no_identities": 0.3, "cut": 1, "away": 0.7,
    "stranger": 0.4, "full": 0.3, "check": 0.2, "adopt": 0.2, "rotate": 0.2,
}  # fmt: skip

LEADS = {
    "rotate": "rotate",
    "acknowledge": "secret beat", "attend": "leap", "configured": "check", "doubt": "cut", "end_task": "end",
    "identity": "open lost_identity", "obtain": "secret", "reconcile.adopt": "adopt", "reconcile.claim": "sweep",
    "reconcile.names": "sweep", "reconcile": "stranger", "reissue": "secret", "renew": "renew leap secret",
    "restamp": "narrow", "withdraw.cut_unrecorded": "full", "withdraw.put_off": "away",
    "withdraw.ran_out": "end leap", "withdraw": "give_back end",
}  # fmt: skip


def leads_to(point: str) -> set[str]:
    """The steps after which a point comes by sooner."""
    return next((set(steps.split()) for start, steps in LEADS.items() if point.startswith(start)), set())
