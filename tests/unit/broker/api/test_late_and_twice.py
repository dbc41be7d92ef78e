"""What is asked too late, twice, or beyond a bound: each has one answer, and changes nothing it should not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.model.lease import CloseReason, LeaseState
from broker.wire.body import parse_moment
from fakes.front import OPERATOR, ROLE, Front, call, front, obtained, opened
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        yield found


async def test_acknowledging_twice_is_once(house: Front) -> None:
    """The second has the answer of the first; an acknowledgement of what is over is refused."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        lease = (await obtained(session, task))["lease"]["id"]
        first = await call(session, "POST", f"/v1/leases/{lease}/ack", {})
        await house.clock.advance(5)
        assert await call(session, "POST", f"/v1/leases/{lease}/ack", {}) == first
        other = (await obtained(session, task))["lease"]["id"]
        await call(session, "DELETE", f"/v1/leases/{other}")
        await house.tick()
        status, said = await call(session, "POST", f"/v1/leases/{other}/ack", {})
        assert (status, said["code"]) == (409, "not-possible")


async def test_giving_back_twice_is_once(house: Front) -> None:
    """While it is being ended and when it is gone, by its task and by an operator: the first reason stands."""
    async with house.session(house.agent()) as session, house.session(OPERATOR) as operator:
        lease = (await obtained(session, await opened(session)))["lease"]["id"]
        house.house.engine.fail("end_access")
        for asking in (session, operator, session):
            status, said = await call(asking, "DELETE", f"/v1/leases/{lease}")
            assert (status, said["state"], said["close_reason"]) == (200, "revoking", "asked")
        await house.tick()
        await house.clock.advance(60)
        await house.tick()
        status, said = await call(operator, "DELETE", f"/v1/leases/{lease}")
        assert (status, said["state"], said["close_reason"]) == (200, "revoked", "asked")
        receipts = [str(entry.receipt.kind) for entry in await house.house.receipts() if entry.receipt.lease == lease]
        assert receipts.count("lease.revoking") == receipts.count("lease.closed") == 1


async def test_what_is_over_is_not_renewed(house: Front) -> None:
    """A lease that was given back, one of an ended task, one that ran out: nothing lives again."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        back, kept = [(await obtained(session, task))["lease"]["id"] for _ in range(2)]
        await call(session, "DELETE", f"/v1/leases/{back}")
        assert (await call(session, "POST", f"/v1/leases/{back}/renew", {}))[0] == 409
        await call(session, "POST", f"/v1/tasks/{task}/end", {})
        for lease in (back, kept):
            assert (await call(session, "POST", f"/v1/leases/{lease}/renew", {}))[0] == 403
        await house.tick()
    assert {lease.state for lease in await house.house.leases()} == {LeaseState.REVOKED}
    assert house.house.engine.target.principals == {}


@pytest.mark.parametrize("ttl", ["2h", "9999d"])
async def test_a_life_beyond_the_role_s_is_cut_to_it(house: Front, ttl: str) -> None:
    """An hour is the most here; the answer says until when, and no renewal passes it."""
    async with house.session(house.agent()) as session:
        task = await opened(session, lasts="3h")
        status, said = await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE, "ttl": ttl})
        assert status == 201
        lease = said["lease"]
        last = parse_moment(lease["last"])
        assert (last - parse_moment(lease["intended_at"])).total_seconds() == 3600
        await call(session, "POST", f"/v1/leases/{lease['id']}/ack", {})
        while house.clock.now() < last:
            await house.clock.advance(50)
            await house.tick()
            await call(session, "POST", f"/v1/leases/{lease['id']}/renew", {})
    (over,) = await house.house.leases()
    assert (over.until, over.close_reason) == (last, CloseReason.RAN_OUT)


@pytest.mark.parametrize("ttl", ["0s", "-1s", "soon", 60])
async def test_a_life_that_is_none_is_refused(house: Front, ttl: object) -> None:
    """400, and nothing is made."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        assert (await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE, "ttl": ttl}))[0] == 400
    assert await house.house.leases() == []


async def test_a_task_that_ended_ends_no_more(house: Front) -> None:
    """Twice is once, with the first outcome; it does not wait, narrow, beat, or open what hangs below it."""
    async with house.session(house.agent()) as session:
        task = await opened(session, heartbeat="10s")
        assert (await call(session, "POST", f"/v1/tasks/{task}/end", {"outcome": "failed"}))[1]["state"] == "failed"
        status, said = await call(session, "POST", f"/v1/tasks/{task}/end", {"outcome": "done"})
        assert (status, said["state"]) == (200, "failed")
        assert (await call(session, "POST", f"/v1/tasks/{task}/state", {"event": "wait"}))[0] == 409
        assert (await call(session, "POST", f"/v1/tasks/{task}/heartbeat", {}))[0] == 403
        opening = {"purpose": "more", "scope": {"roles": [ROLE], "sensitivity": "internal"}, "parent": task}
        assert (await call(session, "POST", "/v1/tasks", opening))[0] == 403
