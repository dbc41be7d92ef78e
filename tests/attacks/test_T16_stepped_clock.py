"""T16: somebody set the machine's clock: nothing is given and nothing renewed until it is stable; endings go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import ClockUntrusted
from broker.lifecycle.renew import renew
from broker.model.lease import CloseReason, LeaseState
from fakes.front import OPENING, ROLE, Front, call, front, obtained, opened

STEPS = [timedelta(hours=1), timedelta(hours=-1), timedelta(days=400)]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        yield found


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_nothing_is_given_and_what_ends_ends(house: Front, step: timedelta) -> None:
    """Open, obtain and renew are told to come again; a lease given back and a task's end are done at once."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        lease = (await obtained(session, task))["lease"]["id"]
        other = (await obtained(session, task))["lease"]["id"]
        before = len(await house.house.leases())
        house.clock.step_wall(step)
        for path, body in (
            ("/v1/tasks", OPENING),
            (f"/v1/tasks/{task}/credentials", {"role": ROLE}),
            (f"/v1/leases/{lease}/renew", {}),
            ("/v1/decisions", {"task": task, "action": "obtain", "resource": ROLE}),
        ):
            status, said = await call(session, "POST", path, body)
            assert (status, said["code"], said["retryable"]) == (503, "clock-untrusted", True), path
        assert len(await house.house.leases()) == before
        assert (await call(session, "POST", f"/v1/leases/{lease}/ack", {}))[0] == 200
        assert (await call(session, "DELETE", f"/v1/leases/{other}"))[0] == 200
        status, ended = await call(session, "POST", f"/v1/tasks/{task}/end", {})
        assert (status, ended["state"]) == (200, "done")
        await house.tick()
    assert all(one.state is LeaseState.REVOKED for one in await house.house.leases())
    assert not house.house.engine.target.principals


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_time_goes_by_the_boot_clock(house: Front, step: timedelta) -> None:
    """No deadline is reached and no lease runs out by the step itself, forward or back, but by time that passes."""
    async with house.session(house.agent()) as session:
        task = await opened(session, lasts="5m")
        lease = (await obtained(session, task))["lease"]["id"]
        assert (await call(session, "POST", f"/v1/leases/{lease}/ack", {}))[0] == 200
    house.clock.step_wall(step)
    await house.house.deadlines.tick(house.clock.now())
    await house.tick()
    assert (await house.house.task(task)).is_live  # type: ignore[arg-type]
    assert (await house.house.leases())[0].state is LeaseState.ACTIVE
    for _ in range(31):
        house.clock.step_wall(step)  # again and again, so that it never becomes stable
        await house.clock.advance(10)
        await house.house.deadlines.tick(house.clock.now())
        await house.tick()
    assert not (await house.house.task(task)).is_live  # type: ignore[arg-type]
    (closed,) = await house.house.leases()
    assert closed.state is LeaseState.REVOKED


async def test_renewal_by_itself_stops_too(house: Front) -> None:
    """The reaper moves no expiry while the clocks disagree: the lease runs out at its short window."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        lease = (await obtained(session, task))["lease"]["id"]
        await call(session, "POST", f"/v1/leases/{lease}/ack", {})
    (before,) = await house.house.leases()
    for _ in range(13):
        house.clock.step_wall(timedelta(hours=1))
        await house.clock.advance(10)
        await house.tick()
    (closed,) = await house.house.leases()
    assert (closed.until, closed.close_reason) == (before.until, CloseReason.RAN_OUT)
    house.clock.step_wall()
    with pytest.raises(ClockUntrusted):
        await renew(house.house.world, before, house.clock.now())


async def test_a_stable_minute_resolves_it(house: Front) -> None:
    """Then everything is given again."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        house.clock.step_wall()
        assert (await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE}))[0] == 503
        await house.clock.advance(61)
        await obtained(session, task)
