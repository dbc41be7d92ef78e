"""Identities of tasks: granted to one instance at a broker's word, and gone in one transaction when it takes them back.

A grant is create-only and known by a name that the broker wrote down before it asked. Whoever does not know whether a
grant arrived withdraws its name: that ends what is there, or takes the name so that nothing can come under it any more.
Either way the answer is certain (traps 21). An identity of a task belongs to one instance for good: no other instance
gets it, also not after it was withdrawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from attestor.errors import InstanceEnded, Unobserved
from attestor.instance import State
from attestor.server.instances import Instances
from attestor.server.store import instances as instance_store
from attestor.server.store import task_identities as store
from attestor.server.store.task_identities import Standing, TaskIdentity
from attestor.wire.task_identity import MOST_AT_ONCE, MOST_OF_INSTANCE, TASK_PATH, Grant, Granted, Withdrawal
from ca.errors import Conflict, Exhausted, NotFound, Stale
from ca.runtime import log
from ca.runtime.database import Database, Transaction
from ca.spiffe.id import SpiffeId, TrustDomain

ENDED = "its task ended"
RAN_OUT = "the end that was set for it has come"
_BATCH = 200
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class TaskIdentities:
    """A broker's word on the identities of its tasks; one for each server process."""

    database: Database
    trust_domain: TrustDomain
    instances: Instances

    async def grant(self, grant: Grant, now: datetime) -> Granted:
        """Give an instance the identity of a task.

        Raises:
            Stale: it came too late, or its end has come already.
            NotFound, InstanceEnded, Unobserved: the instance gets nothing.
            Conflict: the name was used, or the task's identity is another instance's, or stands under another name.
            Exhausted: the instance has as many as one may have.
        """
        if now > grant.grant_by or now >= grant.ends_at:
            raise Stale("the grant came too late: by this server's clock its time is over")
        granted = await self.database.write(lambda tx: self._grant(tx, grant, now))
        if granted.made:
            _log.info("a task was given its identity", task=grant.task, instance=grant.instance)
            self.instances.tell_streams()
        return granted

    async def withdraw(self, asked: Withdrawal, now: datetime) -> int:
        """End one, whatever it is, or take its name; how many leaves were valid until now."""

        async def unit(tx: Transaction) -> int:
            found = await store.get(tx, asked.name)
            if found is None and not await store.insert(tx, _occupied(asked.name, now)):
                found = await store.get(tx, asked.name)  # a grant was faster
            leaves = 0
            if found is not None and found.state is Standing.GRANTED:
                leaves = await store.finish(tx, found, self._id(found.task), ENDED, now)
            if asked.close:
                await store.close(tx, asked.name, now)
            return leaves

        leaves = await self.database.write(unit, ending=True)
        _log.info("the identity of a task was withdrawn", name=asked.name, leaves=leaves)
        self.instances.tell()
        return leaves

    async def names(self, prefix: str, after: str) -> Sequence[str]:
        """Names that begin with `prefix`, a page of them; those of which nothing is left are not among them."""
        return await self.database.read(lambda tx: store.page(tx, prefix, after, MOST_AT_ONCE))

    async def confirm(self, names: Sequence[str], now: datetime) -> Sequence[str]:
        """Their tasks live; answers the names of which nothing is left."""

        async def unit(tx: Transaction) -> list[str]:
            return [one for one in sorted(set(names)) if await store.confirm(tx, one, now) in {None, Standing.CLOSED}]

        return await self.database.write(unit)

    async def tick(self, now: datetime) -> int:
        """End those whose end has come: no clock that is set back brings one back. How many there were."""
        due = await self.database.read(lambda tx: store.over(tx, now, _BATCH))

        async def unit(tx: Transaction) -> None:
            for one in due:
                await store.finish(tx, one, self._id(one.task), RAN_OUT, now)

        if due:
            await self.database.write(unit, ending=True)
            self.instances.tell()
        return len(due)

    async def _grant(self, tx: Transaction, grant: Grant, now: datetime) -> Granted:
        if not await instance_store.hold(tx, [grant.instance]):  # and so this unit comes before its end, or after it
            await self._refuse(tx, grant.instance)
        instance = await instance_store.get(tx, grant.instance)
        assert instance is not None, "it is held"
        if instance.state is not State.LIVE:
            raise Unobserved(f"this instance gets nothing new at the moment: {instance.reason}")
        known = await store.get(tx, grant.name)
        if known is not None:
            return self._again(grant, known)
        await self._check(tx, grant)
        wanted = TaskIdentity(
            name=grant.name,
            state=Standing.GRANTED,
            reason="granted",
            task=grant.task,
            instance=grant.instance,
            node=instance.node,
            ends_at=grant.ends_at,
            confirmed_at=now,
            changed_at=now,
        )
        if not await store.insert(tx, wanted):
            raise Conflict("the task has an identity under another name, or this name was just taken")
        await instance_store.bind(tx, grant.instance)
        return Granted(id=self._id(grant.task), made=True)

    def _again(self, grant: Grant, known: TaskIdentity) -> Granted:
        """The very same grant is answered again; anything else is in its way. Raises Conflict."""
        same = (known.task, known.instance, known.ends_at) == (grant.task, grant.instance, grant.ends_at)
        if known.state is not Standing.GRANTED or not same:
            raise Conflict(f"the name of this grant is taken: {known.reason}")
        return Granted(id=self._id(known.task), made=False)

    @staticmethod
    async def _check(tx: Transaction, grant: Grant) -> None:
        if await store.holders(tx, grant.task) - {grant.instance}:
            raise Conflict("the identity of this task is another instance's")
        held = await store.of_instance(tx, grant.instance)
        if any(one.task == grant.task for one in held):
            raise Conflict("the task has an identity under another name")
        if len(held) >= MOST_OF_INSTANCE:
            raise Exhausted(f"an instance may have the identities of {MOST_OF_INSTANCE} tasks, and has")

    @staticmethod
    async def _refuse(tx: Transaction, instance: str) -> None:
        found = await instance_store.get(tx, instance)
        if found is None:
            raise NotFound("this instance is not known here")
        raise InstanceEnded(f"this instance has ended: {found.reason}")

    def _id(self, task: str) -> SpiffeId:
        return self.trust_domain.member(TASK_PATH + task)


def _occupied(name: str, now: datetime) -> TaskIdentity:
    return TaskIdentity(
        name=name,
        state=Standing.WITHDRAWN,
        reason="it was withdrawn before it was granted",
        task="",
        instance="",
        node="",
        ends_at=now,
        confirmed_at=now,
        changed_at=now,
    )
