"""`?ack=received`: an answer that was read to its end is acknowledged, and no other."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from broker.model.lease import CloseReason, Lease
from fakes.front import ROLE, Front, call, front, opened

T = TypeVar("T")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        yield found


@contextmanager
def reader(house: Front) -> Iterator[socket.socket]:
    """A connection of which nothing is read unless the test does."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.setblocking(False)
        connection.connect(str(house.socket))
        yield connection


async def asks(house: Front, connection: socket.socket, task: str) -> None:
    """Send the request, and read nothing."""
    body = json.dumps({"role": ROLE}).encode()
    house.callers["raw"] = house.agent()
    head = f"POST /v1/tasks/{task}/credentials?ack=received HTTP/1.1\r\nHost: b\r\nX-Test-Caller: raw\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(connection, head.encode() + body)


async def passing(house: Front, work: Coroutine[Any, Any, T]) -> T:
    """What `work` answers, while time passes."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        await house.clock.until(task.done, step=0.005)
    return task.result()


async def issued(house: Front) -> Lease:
    """Wait until the answer is on its way."""
    while not [lease for lease in await house.house.leases() if lease.activated_at]:
        await house.clock.until(lambda: True)
    await house.clock.until(lambda: house.clock.sleeping > 0)  # the handler waits for the reader
    (lease,) = await house.house.leases()
    return lease


async def test_an_answer_that_was_read_is_acknowledged(house: Front) -> None:
    """Also before the next request on the same connection is answered; a repeat of it is told so."""
    async with house.session(house.agent(), limit=1) as session:
        task = await opened(session)
        path = f"/v1/tasks/{task}/credentials?ack=received"
        status, body = await passing(house, call(session, "POST", path, {"role": ROLE}, Idempotency_Key="k"))
        assert status == 201
        status, again = await passing(house, call(session, "POST", path, {"role": ROLE}, Idempotency_Key="k"))
        assert (status, again["lease"]) == (409, body["lease"]["id"])
    (lease,) = await house.house.leases()
    assert lease.acknowledged_at is not None


async def test_an_answer_nobody_reads_is_not(house: Front) -> None:
    """It lies in the kernel's buffer: the reader hangs, and in the stated time its secret is revoked."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
    with reader(house) as connection:
        await asks(house, connection, task)
        lease = await issued(house)
        assert lease.acknowledged_at is None
        await house.clock.advance(31)
        await house.tick()
        (lease,) = await house.house.leases()
        assert (lease.acknowledged_at, lease.close_reason) == (None, CloseReason.NOT_ACKNOWLEDGED)


async def test_an_answer_whose_reader_left_is_not(house: Front) -> None:
    """The connection broke before it was read."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
    with reader(house) as connection:
        await asks(house, connection, task)
        await issued(house)
    await house.clock.advance(1)
    await house.clock.until(lambda: house.clock.sleeping == 0, step=0.005)
    (lease,) = await house.house.leases()
    assert lease.acknowledged_at is None


async def test_it_is_read_late_and_counts(house: Front) -> None:
    """Within the time to acknowledge, slowly is soon enough."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
    with reader(house) as connection:
        await asks(house, connection, task)
        await issued(house)
        await house.clock.advance(20)
        assert b"201 Created" in await asyncio.get_running_loop().sock_recv(connection, 65536)
        while (await house.house.leases())[0].acknowledged_at is None:
            await house.clock.advance(0.005)


async def test_without_it_nothing_is_acknowledged(house: Front) -> None:
    """Reading is not saying so."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        assert (await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE}))[0] == 201
    (lease,) = await house.house.leases()
    assert lease.acknowledged_at is None
