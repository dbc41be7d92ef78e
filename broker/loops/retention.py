"""Forgets what is over, after a stated time, a batch in each transaction so that nobody waits for it.

Several brokers may do so at once: what one has forgotten the other does not find, and a chain that two cut at the same
moment is cut by one of them. The beginning of a chain goes only with a checkpoint in its place and a receipt of the
cut.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from broker.lifecycle import told
from broker.lifecycle.world import World
from broker.model.ids import TaskId
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.retention import Retention
from broker.store import checkpoints, forgetting, quotas, receipts
from ca.errors import Stale
from ca.runtime import log
from ca.runtime.database import Transaction

_log = log.get(__name__)

BATCH = 500
"""Rows of one transaction."""

ROUNDS = 200
"""Transactions of one kind in one tick; the rest is for the next."""

_TREES = 50

Count = Callable[[str, int], None]


def _uncounted(_what: str, _many: int) -> None:
    """Nobody counts."""


@dataclass(slots=True)
class Forgetting:
    """The reconciler of what is over; `count` hears what was forgotten, and how many."""

    world: World
    keep: Retention
    count: Count = _uncounted
    batch: int = BATCH
    forgotten: dict[str, int] = field(default_factory=dict)

    async def tick(self, now: datetime) -> None:
        """Forget what is due at `now`."""
        self.forgotten = {}
        await self._repeat(lambda: self._events(now))
        owed = await self.world.database.read(lambda tx: forgetting.oldest_owed(tx, now))
        await self._trees(min(now - self.keep.tasks, owed))
        left = await self.world.database.read(lambda tx: forgetting.oldest_left(tx, now))
        before = min(now - self.keep.receipts, left)
        for writer in await self.world.database.read(receipts.writers):
            await self._repeat(lambda writer=writer: self._chain(writer, before, now))  # type: ignore[misc]
        minute = int(now.timestamp()) // 60 - 1
        await self.world.database.write(lambda tx: quotas.forget_before(tx, minute))
        if self.forgotten:
            _log.info("what is over was forgotten", **self.forgotten)

    async def _events(self, now: datetime) -> bool:
        before = now - self.keep.events
        gone = await self.world.database.write(lambda tx: forgetting.some_events(tx, before, self.batch))
        return self._say("events", gone) >= self.batch

    async def _trees(self, before: datetime) -> None:
        for _ in range(ROUNDS):
            found = await self.world.database.read(lambda tx: forgetting.trees(tx, before, _TREES))
            gone = 0
            for root in found:
                await self._repeat(lambda root=root: self._leases(root))  # type: ignore[misc]
                gone += await self.world.database.write(lambda tx, root=root: forgetting.tree(tx, root))  # type: ignore[misc]
            self._say("tasks", gone)
            if len(found) < _TREES or not gone:
                return

    async def _leases(self, root: TaskId) -> bool:
        leases, requests = await self.world.database.write(lambda tx: forgetting.some_leases(tx, root, self.batch))
        self._say("requests", requests)
        return self._say("leases", leases) >= self.batch

    async def _chain(self, writer: str, before: datetime, now: datetime) -> bool:
        async def unit(tx: Transaction) -> int:
            cut = await checkpoints.cut(tx, writer, before, self.batch, now)
            if cut is None:
                return 0
            body = {"writer": writer, "number": cut.end.number, "hash": cut.end.hash, "entries": cut.entries}
            said = Receipt(kind=ReceiptKind.AUDIT_CUT, at=now, actor=told.us(self.world), body=body)
            await receipts.append(tx, self.world.broker, said)
            return cut.entries

        try:
            return self._say("receipts", await self.world.database.write(unit)) >= self.batch
        except Stale:
            return True  # another broker was there first

    def _say(self, what: str, many: int) -> int:
        if many:
            self.forgotten[what] = self.forgotten.get(what, 0) + many
            self.count(what, many)
        return many

    @staticmethod
    async def _repeat(step: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(ROUNDS):
            if not await step():
                return
