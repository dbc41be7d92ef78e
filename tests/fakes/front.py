"""A broker's routes over a Unix socket, asked by whoever a test says: for what the API does once a caller is known.

async with front(tmp_path) as house:
    async with house.session(house.agent()) as session:
        async with session.post("/v1/tasks", json=OPENING) as answer: ...
        status, body = await call(session, "POST", "/v1/tasks", OPENING)

The clock stands still until the test moves it; the store, the policies and every line behind the socket are the real
ones. The handshake, which says who calls, is what is left out: `fakes.doors` has it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from broker.api import ROUTES
from broker.api.door import DOOR, Door
from broker.api.identify import still
from broker.events.feed import Feed
from broker.lifecycle.reload import Reloaded
from broker.model.caller import ALL_VERBS, Caller, Operator, Workload
from broker.model.ids import InstanceId
from broker.model.quota import Quotas
from broker.model.role import Role
from broker.policy.source import PolicyHolder
from broker.service.gate import Gate, Limits
from broker.service.operators import KnownOperators
from broker.service.proofs import Proofs
from ca.errors import Unauthenticated
from ca.runtime.metrics import Metrics
from ca.runtime.web import Recheck, application, listen_unix
from ca.spiffe.id import SpiffeId, TrustDomain
from fakes.clock import ManualClock
from fakes.target import FakeEngine
from fakes.world import House, living, role

DOMAIN = TrustDomain.parse("example.org")
INSTANCE = InstanceId("0123456789abcdef" * 2)
OTHER = InstanceId("fedcba9876543210" * 2)
ROLE = "orders-db/readonly"
OPENING: Mapping[str, Any] = {"purpose": "to see", "scope": {"roles": [ROLE], "sensitivity": "internal"}}
LIMITS = Limits(
    longest_task=timedelta(hours=12), longest_heartbeat=timedelta(minutes=10), deepest_tree=3, most_live_tasks=20
)
OPERATOR = Operator(name="ada", verbs=ALL_VERBS)
_CALLER = "X-Test-Caller"


@dataclass
class Front:
    """What runs."""

    house: House
    gate: Gate
    feed: Feed
    socket: Path
    judge: Recheck
    callers: dict[str, Caller] = field(default_factory=dict)
    operators_by_word: bool = True
    """Whether whoever a test calls an operator is one, without a row in the store."""

    @property
    def clock(self) -> ManualClock:
        """Moved by hand."""
        clock: ManualClock = self.house.clock
        return clock

    def agent(
        self,
        path: str = "/agents/billing",
        *,
        instance: InstanceId | None = INSTANCE,
        domain: str = DOMAIN.name,
        not_after: datetime | None = None,
    ) -> Workload:
        """A workload whose leaf lives for a day unless told otherwise."""
        ends = not_after or self.clock.now() + timedelta(days=1)
        return Workload(id=SpiffeId.parse(f"spiffe://{domain}{path}"), instance=instance, not_after=ends)

    def session(self, caller: Caller, **options: Any) -> aiohttp.ClientSession:
        """Connections of one caller."""
        name = f"caller-{len(self.callers)}"
        self.callers[name] = caller
        connector = aiohttp.UnixConnector(str(self.socket), **options)
        return aiohttp.ClientSession("http://broker", connector=connector, headers={_CALLER: name})

    async def identify(self, request: web.Request) -> Caller:
        """In the place of the handshake."""
        found = self.callers.get(request.headers.get(_CALLER, ""))
        if found is None:
            raise Unauthenticated("this needs a client certificate: an X.509-SVID")
        return found

    async def recheck(self, caller: Caller) -> None:
        """As the real door does."""
        if not (self.operators_by_word and isinstance(caller, Operator)):
            await self.judge(caller)

    async def tick(self) -> None:
        """What was committed reaches the streams, what is due is done."""
        await self.house.reap()
        await self.feed.tick(self.clock.now())


async def call(
    session: aiohttp.ClientSession, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    """One request: its status, and the document it was answered with."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.request(method, path, json=body, headers=named) as answer:
        return answer.status, await answer.json(content_type=None) if await answer.read() else None


async def opened(session: aiohttp.ClientSession, **said: Any) -> str:
    """Open a task; its id."""
    status, body = await call(session, "POST", "/v1/tasks", {**OPENING, **said})
    assert status == 201, body
    task: str = body["task"]["id"]
    return task


async def obtained(session: aiohttp.ClientSession, task: str, **headers: str) -> Any:
    """Ask for the secret of the role."""
    status, body = await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE}, **headers)
    assert status == 201, body
    return body


@asynccontextmanager
async def front(
    folder: Path,
    *,
    the_role: Role | None = None,
    engine: FakeEngine | None = None,
    wrap: Any = None,
    quotas: Quotas | None = None,
    **limits: Any,
) -> AsyncIterator[Front]:
    """`folder` must be short enough for a socket's path."""
    policies = PolicyHolder(None)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(
            living(
                folder,
                the_role=the_role or role(engine="postgres"),
                engine=engine,
                wrap=wrap,
                quotas=quotas or Quotas(),
                policy_version=lambda: policies.current.version,
            )
        )
        gate = Gate(
            world=house.world,
            policies=policies,
            proofs=Proofs(),
            limits=replace(LIMITS, **limits),
            metrics=Metrics(),
            trust_domain=DOMAIN,
        )
        operators = KnownOperators()
        judge = still(house.clock, house.observer, operators)
        found = Front(house, gate, Feed(house.world.database), folder / "front.sock", judge)
        app = application(ROUTES, identify=found.identify, recheck=found.recheck, metrics=gate.metrics)
        app[DOOR] = Door(gate=gate, feed=found.feed, operators=operators, reload_targets=_nothing)
        await found.feed.tick(house.clock.now())
        await stack.enter_async_context(listen_unix(app, found.socket, allow_uids={os.geteuid()}, drain=0.1))
        yield found


async def _nothing(_: str | None) -> Reloaded:
    return Reloaded(changed=())
