"""A task around a piece of work: opened when entered, heard of while it runs, ended when left.

    async with task(purpose="reconcile november", roles=["orders-db/readonly"]) as work:
        secret = await work.secret("orders-db/readonly")

It is bound to this process: when the process dies, the task ends. In the background it says that it lives and which
secrets it holds, and follows what the broker tells. When the task is ended from outside, by an operator, its deadline
or a task above it, the body is cancelled and `TaskEnded` raised: every secret it was given is dead by then. An error
that leaves the body ends the task as failed; its text is not told, for it may hold anything.
"""

from __future__ import annotations

import secrets as random_bytes
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from attestor.client.beside import beside
from attestor.client.source import X509Source
from broker.client.address import find_broker, find_workload_api, places_of
from broker.client.asking import asking
from broker.client.broker import Broker
from broker.client.ending import patiently
from broker.client.living import HEARTBEAT, LiveTask, TaskEnded
from broker.model.scope import Pattern, Sensitivity
from broker.wire.tasks import OpenTask, ScopeBody
from ca.runtime.clock import Clock

__all__ = ["HEARTBEAT", "LiveTask", "TaskEnded", "ceiling_of", "task"]


@asynccontextmanager
async def task(
    *,
    purpose: str,
    roles: Sequence[str] = (),
    tools: Sequence[str] = (),
    destinations: Sequence[str] = (),
    sensitivity: Sensitivity | None = None,
    lasts: timedelta | None = None,
    heartbeat: timedelta = HEARTBEAT,
    parent: str | None = None,
    broker: Broker | str | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[LiveTask]:
    """A task bound to this process. Without `sensitivity` its ceiling is that of the roles asked for.

    `broker` is a client or an address; left out, SOJOURN_BROKER or the running `sojourn up` says it. `lasts` is how
    long it may take at most, `parent` the task it is a part of.

    Raises:
        Refused: the policies deny it, or a secret asked for inside.
        TaskEnded: it was ended from outside while the body ran.
        Unreachable, NoIdentity: nobody is there to ask, or nothing says who this process is.
    """
    async with AsyncExitStack() as stack:
        client = broker if isinstance(broker, Broker) else await _connect(stack, broker, clock)
        ceiling = sensitivity if sensitivity is not None else await ceiling_of(client, roles)
        scope = asking(
            ScopeBody, roles=list(roles), tools=list(tools), destinations=list(destinations), sensitivity=ceiling
        )
        ask = asking(OpenTask, purpose=purpose, scope=scope, lasts=lasts, heartbeat=heartbeat, parent=parent)
        key = random_bytes.token_urlsafe(18)
        opened = await patiently(client.clock, lambda: client.open_task(ask, key=key))
        living = LiveTask(client, opened.task)
        error: BaseException | None = None
        async with beside(living.live()):
            try:
                yield living
            except BaseException as raised:
                error = raised
                raise
            finally:
                await living.leave(error)


async def _connect(stack: AsyncExitStack, url: str | None, clock: Clock | None) -> Broker:
    places = places_of()
    source = await stack.enter_async_context(X509Source.open(find_workload_api(None, places), clock))
    return await stack.enter_async_context(Broker.connect(source, find_broker(url, places)))


async def ceiling_of(broker: Broker, roles: Sequence[str]) -> Sensitivity:
    """The highest sensitivity of the roles meant; what no role is known for needs none."""
    wanted = [Pattern.parse(role) for role in roles]
    offered = (await broker.roles()).items if wanted else []
    found = [role.sensitivity for role in offered if any(pattern.matches(role.name) for pattern in wanted)]
    return max(found, default=Sensitivity.PUBLIC)
