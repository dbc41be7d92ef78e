"""The demo's agent, run as a process of its own: `python -m broker.demo.agent PART [UID]`.

It begins with the rights of whoever started it, loads what it needs, and drops to UID before it speaks to anybody. All
it is given is where the Workload API and the broker are. What happens to it, it says on standard output, a line of JSON
at a time; a password is said only by the agent that is about to be killed, so that the demo can play the thief.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import encodings
import json
import os
import pkgutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import asyncpg.protocol
import cryptography

from attestor.client.http import client_session
from attestor.client.source import X509Source
from ca.errors import Problem
from ca.runtime.clock import Clock, SystemClock
from ca.spiffe.match import IdPattern

ROLE = "orders-db/readonly"
FORBIDDEN_ROLE = "orders-db/admin"
_PURPOSE = {"worker": "sum up the open orders", "victim": "watch the orders for a very long time"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the agent works with."""

    part: str
    clock: Clock
    session: aiohttp.ClientSession
    broker: str

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """One call of the broker."""
        async with self.session.post(self.broker + path, json=body) as answer:
            return answer.status, await answer.json(content_type=None)


def say(what: str, **facts: Any) -> None:
    """Tell the demo."""
    print(json.dumps({"what": what, **facts}), flush=True)  # noqa: T201 - this is how the agent speaks


async def work(desk: Desk) -> None:
    """Open a task, obtain the secret, use it, try too much, end."""
    status, opened = await desk.post(
        "/v1/tasks",
        {"purpose": _PURPOSE[desk.part], "lasts": "10m", "scope": {"roles": [ROLE], "sensitivity": "internal"}},
    )
    _expect(status, 201, opened)
    task = opened["task"]["id"]
    if desk.part == "worker":
        say("opened", task=task, policies=", ".join(opened["policies"]), reason=opened["reason"])
    status, given = await desk.post(f"/v1/tasks/{task}/credentials?ack=received", {"role": ROLE, "confidence": 90})
    _expect(status, 201, given)
    facts = {"user": given["fields"]["username"], "policies": ", ".join(given["policies"]), "reason": given["reason"]}
    if desk.part == "victim":
        await _until_killed(given, {**facts, "task": task})
    say("issued", **facts)
    await _use(desk, task, given)


async def _until_killed(given: dict[str, Any], facts: dict[str, Any]) -> None:
    say("issued", **facts, password=given["secret"]["password"])
    session = await login(given)
    await session.fetch("SELECT pg_sleep(3600), * FROM orders")


async def _use(desk: Desk, task: str, given: dict[str, Any]) -> None:
    wrong = {**given, "secret": {"password": "not-the-password"}}
    say("wrong_password", **await refusal(lambda: login(wrong)))
    session = await login(given)
    row = await session.fetchrow("SELECT count(*) AS count, sum(quantity * cents)::bigint AS total FROM orders")
    assert row is not None
    say("rows", count=row["count"], total=row["total"])
    say("write_refused", **await refusal(lambda: session.execute("UPDATE orders SET cents = 0")))
    status, denied = await desk.post(f"/v1/tasks/{task}/credentials", {"role": FORBIDDEN_ROLE, "confidence": 90})
    said = {"reason": denied.get("detail"), "policies": denied.get("policies"), "nearest": denied.get("nearest")}
    say("role_refused", ok=status == 403, **said)
    await asyncio.to_thread(sys.stdin.readline)
    status, ended = await desk.post(f"/v1/tasks/{task}/end", {"outcome": "done", "words": "summed up"})
    _expect(status, 200, ended)
    begun = desk.clock.boot()
    say("ended", task=task, state=ended["state"])
    await _afterwards(desk, given, session, begun)


async def _afterwards(desk: Desk, given: dict[str, Any], session: asyncpg.Connection, begun: float) -> None:
    """Try the door again and again, and then the session that was open."""
    while (answer := await refusal(lambda: _in_and_out(given)))["ok"] is False:
        await desk.clock.sleep(0.002)
    say("login_refused", **answer, after_ms=round((desk.clock.boot() - begun) * 1000, 1))
    while not session.is_closed():  # rights go first, then the session: only its death counts
        await refusal(lambda: session.fetchval("SELECT count(*) FROM orders"))
        await desk.clock.sleep(0.002)
    answer = await refusal(lambda: session.fetchval("SELECT count(*) FROM orders"))
    say("session_cut", **answer, after_ms=round((desk.clock.boot() - begun) * 1000, 1))


async def _in_and_out(given: dict[str, Any]) -> None:
    await (await login(given)).close()


async def login(given: dict[str, Any]) -> asyncpg.Connection:
    """Connect with what the broker handed over, and nothing else."""
    fields = given["fields"]
    return await asyncpg.connect(
        host=fields["host"],
        port=fields["port"],
        database=fields["database"],
        user=fields["username"],
        password=given["secret"]["password"],
        ssl=False,
        timeout=10,
    )


async def refusal(attempt: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    """Whether `attempt` was refused, and in whose words."""
    try:
        await attempt()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        return {"ok": True, "error": str(error).splitlines()[0] if str(error) else type(error).__name__}
    return {"ok": False, "error": "it was let in"}


def _expect(status: int, expected: int, answer: dict[str, Any]) -> None:
    if status != expected:
        say("failed", error=answer.get("detail", answer))
        raise SystemExit(1)


@asynccontextmanager
async def _desk(part: str, clock: Clock) -> AsyncIterator[Desk]:
    async with X509Source.open(None, clock) as source:
        own = source.svid
        say("attested", id=str(own.id), instance=own.instance, uid=os.getuid())
        expected = IdPattern.exactly(own.id.trust_domain.member("/sojourn/broker"))
        async with client_session(source, expected) as session:
            yield Desk(part=part, clock=clock, session=session, broker=os.environ["SOJOURN_BROKER"])


async def main(part: str) -> None:
    """The agent's life."""
    async with _desk(part, SystemClock()) as desk:
        await work(desk)


def _drop(uid: int) -> None:
    """Become `uid`. What libraries load late is loaded now: afterwards our own files may be closed to us."""
    for package in (encodings, concurrent.futures, cryptography, aiohttp, asyncpg):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ImportError):  # a part for another system, or of an extra nobody asked for
                    __import__(module.name)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.chdir("/")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _drop(int(sys.argv[2]))
    try:
        asyncio.run(main(sys.argv[1]))
    except Problem as problem:
        say("failed", error=str(problem))
        raise SystemExit(1) from problem
