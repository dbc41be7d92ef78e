"""The closing report through the routes: a tree as a whole, and enforcement points by their own word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.model.caller import Operator, Verb
from fakes.front import Front, call, front, obtained, opened

GATES = ("spiffe://example.org/gateway/1", "spiffe://example.org/gateway/2")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes; two points and an operator are registered."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        object.__setattr__(found.house.world, "points", (*GATES, "operator:edge"))
        yield found


async def confirmed(house: Front, caller: Any, n: int | None = None) -> tuple[int, Any]:
    """Somebody says it has applied everything up to the newest event, or another."""
    body = {"incarnation": house.feed.epoch.incarnation, "n": house.feed.epoch.n if n is None else n}
    async with house.session(caller) as session:
        return await call(session, "POST", "/v1/epochs", body)


async def test_a_tree_ends_as_one_and_points_confirm_it(house: Front) -> None:
    """What children were given stands in the parent's report; each point counts once its word covers the end."""
    async with house.session(house.agent()) as session:
        top = await opened(session)
        child = await opened(session, parent=top)
        for task in (top, child):
            await obtained(session, task)
        await house.feed.tick(house.clock.now())
        gate = house.agent("/gateway/1", instance=None)
        assert (await confirmed(house, gate))[0] == 200  # of what was before the end
        await call(session, "POST", f"/v1/tasks/{top}/end", {})
        _, first = await call(session, "GET", f"/v1/tasks/{top}/report")
        assert first["summary"].startswith("access is being ended: 0 of 2 gone")
        assert first["unconfirmed"] == ["operator:edge", *GATES]
        await house.tick()
        assert (await confirmed(house, gate))[0] == 200
        assert (await confirmed(house, Operator(name="edge", verbs=frozenset({Verb.CONFIRM_EPOCHS}))))[0] == 200
        _, told = await call(session, "GET", f"/v1/tasks/{top}/report")
    assert {line["task"] for line in told["leases"]} == {top, child}
    assert told["final"] is True
    assert told["access_gone_after_ms"] == 0
    assert told["unconfirmed"] == [GATES[1]]
    assert told["summary"] == f"access gone at +0 ms, 2 of 3 confirmed, not yet {GATES[1]}"


async def test_only_registered_points_confirm(house: Front) -> None:
    """An agent that says it applied an end is refused; another domain's gateway of the same path too."""
    await house.house.end(await house.house.open())
    await house.tick()
    for caller in (house.agent(), house.agent("/gateway/1", domain="example.net", instance=None)):
        status, said = await confirmed(house, caller)
        assert (status, said["code"]) == (403, "denied")
    status, said = await confirmed(house, house.agent("/gateway/2", instance=None), n=house.feed.epoch.n + 1)
    assert (status, said["code"]) == (409, "stale")


async def test_a_registered_point_follows_everything(house: Front) -> None:
    """What it must enforce is everybody's; any other workload names a task of its own."""
    gate = house.session(house.agent("/gateway/1", instance=None))
    async with gate as session, session.get("/v1/events") as answer:
        assert answer.status == 200
        await house.house.end(await house.house.open())
        await house.tick()
        while b"task.ended" not in await answer.content.readline():
            pass
    async with house.session(house.agent()) as session, session.get("/v1/events") as answer:
        assert answer.status == 403
