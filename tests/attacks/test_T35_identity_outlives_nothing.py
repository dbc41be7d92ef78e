"""T35: a connection that was opened while its caller was somebody outlives neither the leaf nor the instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from attestor.client.http import client_session
from broker.model.observed import Observation
from broker.model.task import EndReason
from ca.spiffe.id import SpiffeId
from fakes.doors import INSTANCE as TLS_INSTANCE
from fakes.doors import doors
from fakes.front import INSTANCE, OPENING, OPERATOR, OTHER, ROLE, Front, call, front, opened

HOUR = timedelta(hours=1)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        yield found


async def lines(answer: aiohttp.ClientResponse) -> list[str]:
    """The names of everything a stream tells, to its end."""
    text = (await answer.read()).decode()
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


ROUTES: Mapping[str, tuple[str, Any]] = {
    "/v1/tasks": ("GET", None),
    "/v1/roles": ("GET", None),
    "/v1/tasks/{task}": ("GET", None),
    "/v1/tasks/{task}/heartbeat": ("POST", {}),
    "/v1/tasks/{task}/credentials": ("POST", {"role": ROLE}),
    "/v1/tasks/{task}/end": ("POST", {}),
    "/v1/events?task={task}": ("GET", None),
}


@pytest.mark.parametrize("path", ROUTES)
async def test_the_next_request_after_the_leaf_s_end_is_refused(house: Front, path: str) -> None:
    """The same kept-alive connection: 200 before its leaf expired, 401 after, and nothing was done."""
    async with house.session(house.agent(not_after=house.clock.now() + HOUR), limit=1) as session:
        task = await opened(session)
        await house.clock.advance(HOUR.total_seconds() - 1)
        assert (await call(session, "GET", f"/v1/tasks/{task}"))[0] == 200
        await house.clock.advance(1)
        method, body = ROUTES[path]
        status, said = await call(session, method, path.format(task=task), body)
    assert (status, said["code"]) == (401, "unauthenticated")
    assert not await house.house.leases()
    assert (await house.house.task(task)).is_live  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ROUTES)
async def test_the_next_request_after_the_instance_s_end_is_refused(house: Front, path: str) -> None:
    """Whoever still has the dead process' connection, or its key, is nobody."""
    async with house.session(house.agent(), limit=1) as session:
        task = await opened(session)
        house.house.observer.states[INSTANCE] = Observation.ENDED
        method, body = ROUTES[path]
        status, said = await call(session, method, path.format(task=task), body)
    assert (status, said["code"]) == (401, "unauthenticated")
    assert not await house.house.leases()


async def test_a_stream_ends_with_its_leaf(house: Front) -> None:
    """It tells `end`, and nothing that happened later."""
    async with house.session(house.agent(not_after=house.clock.now() + HOUR)) as session:
        task = await opened(session)
        async with session.get(f"/v1/events?task={task}", headers={"Last-Event-ID": "none.0"}) as answer:
            assert answer.status == 200
            assert (await answer.content.readuntil(b"\n\n")).startswith(b"event: beat")
            await house.clock.advance(HOUR.total_seconds())
            await house.house.end(await house.house.task(task), EndReason.OPERATOR)  # type: ignore[arg-type]
            await house.tick()
            told = await lines(answer)
    assert told[-1] == "end"
    assert "task.ended" not in told


async def test_a_stream_ends_with_its_instance(house: Front) -> None:
    """The process' end ends what its key holds open."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        async with session.get(f"/v1/events?task={task}") as answer:
            await answer.content.readuntil(b"\n\n")
            house.house.observer.states[INSTANCE] = Observation.ENDED
            assert (await lines(answer))[-1] == "end"


async def test_the_end_of_another_instance_is_nobody_s_end(house: Front) -> None:
    """Only the caller's own counts."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        house.house.observer.states[OTHER] = Observation.ENDED
        assert (await call(session, "GET", f"/v1/tasks/{task}"))[0] == 200


async def test_an_operator_who_was_removed_is_nobody(house: Front) -> None:
    """Verbs are asked on each request; one whom the store doesn't know has none."""
    house.operators_by_word = False
    async with house.session(OPERATOR) as session:
        status, said = await call(session, "GET", "/v1/tasks")
    assert (status, said["code"]) == (401, "unauthenticated")


async def test_over_mutual_tls_an_open_connection_ends_with_its_instance(tmp_path: Path) -> None:
    """Real certificates, one connection kept alive, and a stream on another."""

    def is_broker(found: SpiffeId) -> bool:
        return found.path == "/sojourn/broker"

    async with asyncio.timeout(60), doors(tmp_path) as house:  # noqa: SIM117 - the session is made of the house
        async with client_session(house.material(), is_broker, base_url=house.url) as session:
            status, body = await call(session, "POST", "/v1/tasks", OPENING)
            assert status == 201
            task = body["task"]["id"]
            async with session.get(f"/v1/events?task={task}") as answer:
                await answer.content.readuntil(b"\n\n")
                house.house.observer.states[TLS_INSTANCE] = Observation.ENDED  # type: ignore[index]
                assert (await lines(answer))[-1] == "end"
            assert (await call(session, "GET", f"/v1/tasks/{task}"))[0] == 401
