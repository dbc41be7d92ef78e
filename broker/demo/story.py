"""The demo's story: the steps, and what must be true at the database after each.

Everything is real and nothing is told that was not seen: the agents are processes of their own and say what happened to
them; what became of their users is asked of PostgreSQL by a superuser's session of the demo's.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from broker.audit.verify import verify
from broker.demo.actor import Actor
from broker.demo.database import Server, embedded
from broker.demo.orders import READERS, WRITERS, Orders, seeded
from broker.demo.timeline import Timeline
from broker.demo.watcher import Watcher
from broker.model.caller import ALL_VERBS, Operator
from broker.model.task import TaskState
from broker.service import audit, reading
from broker.service.proofs import Asked, Shown
from broker.up import Up, Wish, up
from ca.runtime.clock import Clock
from ca.runtime.places import Places
from ca.runtime.process import Readiness
from ca.spiffe.id import TrustDomain

TRUST_DOMAIN = TrustDomain.parse("demo.sojourn.internal")
AGENT_UID = 47110
"""Nobody's uid: where the demo may, its agents run under it."""

_TARGET = """\
engine:
  kind: postgres
  host: "{host}"
  port: {port}
  database: {database}
  user: {user}
  password: "file:{password}"
roles:
  readonly:
    description: read the orders
    sensitivity: internal
    ttl: 5m
    longest: 1h
    engine: {{groups: [{readers}]}}
  admin:
    description: change the orders
    sensitivity: restricted
    ttl: 1m
    longest: 5m
    engine: {{groups: [{writers}]}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where the story takes place."""

    clock: Clock
    timeline: Timeline
    orders: Orders
    up: Up
    watcher: Watcher
    uid: int | None


async def tell(clock: Clock, timeline: Timeline, own: Server | None) -> bool:
    """The whole story; True when everything happened as promised."""
    async with _stage(clock, timeline, own) as stage:
        await _one_task(stage)
        await _killed(stage)
        await _audit(stage)
    return timeline.verdict()


@asynccontextmanager
async def _stage(clock: Clock, timeline: Timeline, own: Server | None) -> AsyncIterator[Stage]:
    uid = AGENT_UID if os.geteuid() == 0 else None
    async with AsyncExitStack() as stack:
        folder = _folder(stack)
        timeline.part("Setting up")
        server = own if own is not None else await stack.enter_async_context(embedded(folder, clock))
        orders = await stack.enter_async_context(seeded(server))
        watcher = await stack.enter_async_context(Watcher.open(orders, clock))
        timeline.fact("PostgreSQL answers", await watcher.version())
        places = Places.of(folder / "state", folder / "run")
        _write_target(places, orders)
        wish = Wish(trust_domain=TRUST_DOMAIN, hold=() if uid is None else (uid,))
        running = await stack.enter_async_context(up(places, wish, clock, Readiness()))
        timeline.fact("sojourn is up", f"{TRUST_DOMAIN}, broker at {running.address}")
        yield Stage(clock=clock, timeline=timeline, orders=orders, up=running, watcher=watcher, uid=uid)


def _folder(stack: AsyncExitStack) -> Path:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sojourn-demo-")))
    folder.chmod(0o711)  # agents of another uid pass through to the Workload API's socket
    return folder


def _write_target(places: Places, orders: Orders) -> None:
    places.create()
    targets, password = places.state / "targets", places.state / "orders-db.password"
    targets.mkdir(mode=0o700)
    descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(orders.password.reveal())
    text = _TARGET.format(
        host=orders.server.host,
        port=orders.server.port,
        database=orders.database,
        user=orders.administrator,
        password=password,
        readers=READERS,
        writers=WRITERS,
    )
    (targets / "orders-db.yaml").write_text(text)


async def _one_task(stage: Stage) -> None:
    """An agent works and ends its task."""
    line = stage.timeline
    line.part("One task, end to end")
    async with Actor.start("worker", stage.up, stage.uid) as agent:
        user = await _works(stage, agent)
        await _is_refused_more(stage, agent)
        await agent.say("end")
        ended = await agent.hears("ended")
        line.fact("task ended", f"said so, state {ended['state']}", holds=ended["state"] == TaskState.DONE)
        refused = await agent.hears("login_refused")
        line.fact("login refused", f"{refused['after_ms']} ms after the end: {refused['error']}", holds=refused["ok"])
        cut = await agent.hears("session_cut")
        line.fact("open session cut", f"{cut['after_ms']} ms after the end: {cut['error']}", holds=cut["ok"])
        await _gone(stage, user)
        await _report(stage, ended["task"])
    line.fact("agent ended", f"exit code {agent.code}", holds=agent.code == 0)


async def _works(stage: Stage, agent: Actor) -> str:
    """Attested, decided, given a user, at work; answers the user's name."""
    line = stage.timeline
    found = await agent.hears("attested")
    line.fact("attested as", f"{found['id']} (uid {found['uid']}, instance {found['instance'][:8]}…)")
    opened = await agent.hears("opened")
    line.fact("task opened", f"decided by policy {opened['policies']}: {opened['reason']}")
    issued = await agent.hears("issued")
    line.fact("secret decided", f"by policy {issued['policies']}: {issued['reason']}")
    there = await stage.watcher.role(issued["user"])
    expiry = f"{there['valid_until']:%H:%M:%S} at the latest" if there else ""
    line.fact("user created", f"{issued['user']}, ends by itself {expiry}", holds=there is not None)
    wrong = await agent.hears("wrong_password")
    line.fact("wrong password refused", wrong["error"], holds=wrong["ok"])
    rows = await agent.hears("rows")
    sessions = await stage.watcher.sessions(issued["user"])
    line.fact("own password accepted", f"{sessions} session(s) seen by the server", holds=sessions > 0)
    real = await stage.watcher.total()
    line.fact("real rows read", f"{rows['count']} orders, total {rows['total'] / 100:.2f}", holds=rows["total"] == real)
    user: str = issued["user"]
    return user


async def _is_refused_more(stage: Stage, agent: Actor) -> None:
    line = stage.timeline
    written = await agent.hears("write_refused")
    line.fact("write refused", f"by the database: {written['error']}", holds=written["ok"])
    denied = await agent.hears("role_refused")
    line.fact("other role refused", f"by {denied['policies']}: {denied['reason']}", holds=denied["ok"])
    if denied["ok"]:
        line.fact("nearest change", denied["nearest"])


async def _killed(stage: Stage) -> None:
    """An agent is killed with -9 in the middle of a query."""
    line = stage.timeline
    line.part("An agent killed with -9 in the middle of a query")
    async with Actor.start("victim", stage.up, stage.uid) as agent:
        found = await agent.hears("attested")
        line.fact("attested as", f"{found['id']} (pid {agent.pid})")
        issued = await agent.hears("issued")
        user = issued["user"]
        running = await stage.watcher.until_querying(user)
        line.fact("query running", running, holds=bool(running))
        agent.kill()
        line.fact("kill -9", f"pid {agent.pid}")
        await stage.watcher.until_no_session(user)
        line.fact("open session cut", "the server has no session of it", holds=await stage.watcher.sessions(user) == 0)
        refused = await _thief(stage, user, issued["password"])
        line.fact("stolen password refused", refused or "it still opens the door", holds=bool(refused))
        await _gone(stage, user)
        await _report(stage, issued["task"])


async def _thief(stage: Stage, user: str, password: str) -> str | None:
    """Somebody who copied the dead agent's password tries it; what the server said, None when it let them in."""
    server = stage.orders.server
    try:
        session = await asyncpg.connect(
            host=server.host, port=server.port, user=user, password=password, database=stage.orders.database, timeout=10
        )
    except asyncpg.PostgresError as error:
        return str(error)
    await session.close()
    return None


async def _gone(stage: Stage, user: str) -> None:
    await stage.watcher.until_gone(user)
    stage.timeline.fact("user gone", f"pg_roles has no {user}", holds=await stage.watcher.role(user) is None)


async def _report(stage: Stage, task: Any) -> None:
    asked = _operator(stage)
    while True:
        report = await reading.report(stage.up.broker.gate, asked, task)
        if report.is_final:
            break
        await stage.clock.sleep(0.01)
    told = report.to_json()
    line = next(one for one in told["leases"] if one["role"] != "svid/task")
    stage.timeline.fact(
        "closing report", f"{told['end_reason']}; lease {line['fate']}, access ended {line['access_ended_at']}"
    )


async def _audit(stage: Stage) -> None:
    line = stage.timeline
    line.part("Afterwards")
    gate, asked = stage.up.broker.gate, _operator(stage)
    entries = await audit.page(gate, asked, None, 10_000)
    verify(entries)
    line.fact("audit verified", f"{len(entries)} receipts in one unbroken chain", holds=bool(entries))
    left = await stage.watcher.principals()
    line.fact("nothing left", f"{left} users of ours in the server", holds=left == 0)


def _operator(stage: Stage) -> Asked:
    """The demo's own eyes, as the operators' socket would have them."""
    shown = Shown(header=None, method="GET", path=f"/demo/{secrets.token_hex(4)}")
    return Asked(caller=Operator(name="demo", verbs=ALL_VERBS), shown=shown, now=stage.clock.now())
