"""Opening, beating, changing and ending tasks through the routes: bounds, races, and what a change reaches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.model.ids import InstanceId
from broker.model.lease import CloseReason, LeaseState
from broker.model.observed import Observation, Observed, Unobserving
from broker.model.receipt import ReceiptKind
from broker.model.task import EndReason
from broker.store import tasks
from fakes.front import INSTANCE, OPENING, OTHER, ROLE, Front, call, front, obtained, opened
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")

SCOPE = OPENING["scope"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        yield found


async def live(house: Front) -> int:
    """How many tasks live."""
    return len(await house.house.world.database.read(tasks.live))


class TestOpening:
    """What is asked for at the beginning."""

    @pytest.mark.parametrize(
        ("said", "status", "word"),
        [
            ({"lasts": "13h"}, 400, "deadline"),
            ({"deadline": "2025-01-01T00:00:00Z"}, 400, "deadline"),
            ({"heartbeat": "500ms"}, 400, "heartbeat"),
            ({"heartbeat": "11m"}, 400, "heartbeat"),
            ({"bind": False}, 400, "key"),
            ({"bind": False, "lasts": "5m"}, 400, "key"),
        ],
        ids=str,
    )
    async def test_out_of_bounds(self, house: Front, said: dict[str, Any], status: int, word: str) -> None:
        """A sentence that names the field; no task."""
        async with house.session(house.agent()) as session:
            found, body = await call(session, "POST", "/v1/tasks", {**OPENING, **said})
        assert found == status
        assert word in str(body)
        assert await live(house) == 0

    async def test_a_tree_has_a_bottom(self, house: Front) -> None:
        """Three deep here; the fourth is too deep."""
        async with house.session(house.agent()) as session:
            top = await opened(session)
            middle = await opened(session, parent=top)
            bottom = await opened(session, parent=middle)
            status, said = await call(session, "POST", "/v1/tasks", {**OPENING, "parent": bottom})
        assert (status, said["code"]) == (429, "exhausted")

    async def test_one_identity_has_so_many(self, house: Front) -> None:
        """Of all its processes together; ending one makes room."""
        async with house.session(house.agent()) as session, house.session(house.agent(instance=OTHER)) as second:
            names = [await opened(one) for one in (session, second) for _ in range(10)]
            assert (await call(session, "POST", "/v1/tasks", OPENING))[0] == 429
            assert (await call(session, "POST", f"/v1/tasks/{names[0]}/end", {}))[0] == 200
            await opened(second)

    async def test_a_child_reaches_no_further(self, house: Front) -> None:
        """Neither roles nor sensitivity nor budget beyond its parent's."""
        async with house.session(house.agent()) as session:
            top = await opened(session, scope={**SCOPE, "budget": {"secrets": 2}})
            for wider in ({"roles": ["*"]}, {"sensitivity": "restricted"}, {"budget": {"secrets": 3}}):
                scope = {**SCOPE, "budget": {"secrets": 2}, **wider}
                assert (await call(session, "POST", "/v1/tasks", {**OPENING, "scope": scope, "parent": top}))[0] == 403
        assert await live(house) == 1

    async def test_a_process_that_ended_while_it_opened_leaves_no_task(self, house: Front) -> None:
        """Alive when asked, dead before the task was there: the task ends in the same request."""

        async def bind(instance: InstanceId) -> Observed:
            house.house.observer.states[instance] = Observation.ENDED
            return Observed(state=Observation.LIVE, strength="own-uid")

        house.house.observer.bind = bind  # type: ignore[method-assign]
        async with house.session(house.agent()) as session:
            status, said = await call(session, "POST", "/v1/tasks", OPENING)
        assert (status, said["detail"]) == (403, "the opener's process has ended")
        assert await live(house) == 0
        (ended,) = await house.house.world.database.read(lambda tx: tasks.page(tx, after=None, limit=9))
        assert ended.end_reason is EndReason.PROCESS_ENDED

    @pytest.mark.parametrize("state", [Observation.ENDED, Observation.UNOBSERVED, Observation.UNKNOWN])
    async def test_a_process_that_is_not_seen_opens_nothing(self, house: Front, state: Observation) -> None:
        """Ended, on a silent node, or with nobody to watch it."""
        house.house.observer.observed = lambda _: Observed(state=state, strength="none")  # type: ignore[method-assign,assignment]
        async with house.session(house.agent()) as session:
            assert (await call(session, "POST", "/v1/tasks", {**OPENING, "lasts": "5m"}))[0] in {400, 401, 403}
        assert await live(house) == 0

    async def test_nobody_watching_is_said_so(self) -> None:
        """An observer that sees nothing says unknown, whatever is asked."""
        assert (await Unobserving().bind(INSTANCE)).state is Observation.UNKNOWN
        assert Unobserving().observed(INSTANCE).state is Observation.UNKNOWN

    async def test_nothing_begins_once_everything_is_being_ended(self, house: Front) -> None:
        """Open and obtain answer 503; what ends still ends."""
        async with house.session(house.agent()) as session:
            task = await opened(session)
            house.gate.stopping.set()
            assert (await call(session, "POST", "/v1/tasks", OPENING))[0] == 503
            assert (await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE}))[0] == 503
            assert (await call(session, "POST", f"/v1/tasks/{task}/end", {}))[0] == 200


class TestNarrowing:
    """What shrinks, shrinks for everybody below."""

    async def test_a_child_s_lease_outside_the_parent_s_new_scope_is_revoked(self, house: Front) -> None:
        """Its own scope did not change; its version did, so what was decided under the wider one is fenced."""
        async with house.session(house.agent()) as session:
            top = await opened(session)
            child = await opened(session, parent=top)
            below = await opened(session, parent=child)
            lease = (await obtained(session, below))["lease"]["id"]
            await call(session, "POST", f"/v1/leases/{lease}/ack", {})
            narrow = {"event": "narrow", "scope": {**SCOPE, "roles": []}}
            assert (await call(session, "POST", f"/v1/tasks/{top}/state", narrow))[0] == 200
            await house.tick()
            (closed,) = await house.house.leases()
            assert (closed.state, closed.close_reason) == (LeaseState.REVOKED, CloseReason.NARROWED)
            status, refused = await call(session, "POST", f"/v1/tasks/{below}/credentials", {"role": ROLE})
            assert (status, refused["code"]) == (403, "refused")
        told = [
            one.receipt.task for one in await house.house.receipts() if one.receipt.kind is ReceiptKind.TASK_CHANGED
        ]
        assert told[0] == top
        assert len(told) == 3
        assert set(told[1:]) == {child, below}  # born in one millisecond, their ids have no order

    async def test_what_is_still_inside_stays(self, house: Front) -> None:
        """Re-stamped, not revoked."""
        async with house.session(house.agent()) as session:
            top = await opened(session, scope={**SCOPE, "roles": ["*"]})
            child = await opened(session, parent=top)
            lease = (await obtained(session, child))["lease"]["id"]
            await call(session, "POST", f"/v1/leases/{lease}/ack", {})
            await call(session, "POST", f"/v1/tasks/{top}/state", {"event": "narrow", "scope": SCOPE})
            await house.tick()
        (kept,) = await house.house.leases()
        assert (kept.state, kept.task_version) == (LeaseState.ACTIVE, 2)

    async def test_it_can_not_be_undone(self, house: Front) -> None:
        """A wider scope is refused, also after waiting."""
        async with house.session(house.agent()) as session:
            task = await opened(session)
            for event in ({"event": "wait"}, {"event": "resume"}):
                assert (await call(session, "POST", f"/v1/tasks/{task}/state", event))[0] == 200
            wider = {"event": "narrow", "scope": {**SCOPE, "roles": ["*"]}}
            assert (await call(session, "POST", f"/v1/tasks/{task}/state", wider))[0] == 403

    async def test_a_waiting_task_is_given_nothing(self, house: Front) -> None:
        """Until it goes on."""
        async with house.session(house.agent()) as session:
            task = await opened(session)
            await call(session, "POST", f"/v1/tasks/{task}/state", {"event": "wait"})
            assert (await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE}))[0] == 403
            await call(session, "POST", f"/v1/tasks/{task}/state", {"event": "resume"})
            await obtained(session, task)


class TestBudget:
    """One budget for a task and everything below it."""

    async def test_children_don_t_have_it_once_each(self, house: Front) -> None:
        """Two secrets for the tree, however many children ask."""
        scope = {**SCOPE, "budget": {"secrets": 2}}
        async with house.session(house.agent()) as session:
            top = await opened(session, scope=scope)
            children = [await opened(session, parent=top, scope=scope) for _ in range(3)]
            await obtained(session, children[0])
            await obtained(session, children[1])
            for task in (children[2], children[0], top):
                status, said = await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE})
                assert (status, said["code"]) == (429, "exhausted")
        assert len(house.house.engine.target.principals) == 2

    async def test_decisions_count_too(self, house: Front) -> None:
        """Those of the tree together; the opening was one."""
        scope = {**SCOPE, "budget": {"decisions": 3}}
        async with house.session(house.agent()) as session:
            task = await opened(session, scope=scope)
            ask = {"task": task, "action": "obtain", "resource": ROLE}
            answers = [(await call(session, "POST", "/v1/decisions", ask))[0] for _ in range(3)]
        assert answers == [200, 200, 429]


class TestBeating:
    """A heartbeat lists what is held."""

    async def test_it_acknowledges_and_tells_what_is_over(self, house: Front) -> None:
        """A lease that was given back is not among those acknowledged, though it was acknowledged once."""
        async with house.session(house.agent()) as session:
            task = await opened(session, heartbeat="10s")
            names = [(await obtained(session, task))["lease"]["id"] for _ in range(2)]
            path = f"/v1/tasks/{task}/heartbeat"
            _, first = await call(session, "POST", path, {"leases": names})
            assert first["acknowledged"] == names
            await call(session, "DELETE", f"/v1/leases/{names[0]}")
            _, second = await call(session, "POST", path, {"leases": names})
        assert second["acknowledged"] == names[1:]

    async def test_another_task_s_lease_is_not_acknowledged(self, house: Front) -> None:
        """Listing it does nothing to it."""
        async with house.session(house.agent()) as session:
            mine, other = await opened(session), await opened(session)
            lease = (await obtained(session, other))["lease"]["id"]
            _, said = await call(session, "POST", f"/v1/tasks/{mine}/heartbeat", {"leases": [lease]})
        assert said["acknowledged"] == []
        assert (await house.house.leases())[0].acknowledged_at is None

    async def test_a_silent_task_is_given_nothing(self, house: Front) -> None:
        """Three beats missed: it is given nothing even before its end is written."""
        async with house.session(house.agent()) as session:
            task = await opened(session, heartbeat="10s")
            await house.clock.advance(30)
            assert (await call(session, "POST", f"/v1/tasks/{task}/credentials", {"role": ROLE}))[0] == 403


async def test_who_revoked_stands_in_the_audit(house: Front) -> None:
    """The agent itself, not the broker for it."""
    async with house.session(house.agent()) as session:
        lease = (await obtained(session, await opened(session)))["lease"]["id"]
        await call(session, "DELETE", f"/v1/leases/{lease}")
    (said,) = [one.receipt for one in await house.house.receipts() if one.receipt.kind is ReceiptKind.LEASE_REVOKING]
    assert said.actor == "spiffe://example.org/agents/billing"


async def test_opening_again_under_the_same_key_is_the_same_task(house: Front) -> None:
    """Also after it has ended; another opener's key is another key, and another body is refused."""
    async with house.session(house.agent()) as session:
        first = await opened_with(session, "k")
        assert await opened_with(session, "k") == first
        assert await opened_with(session, "other") != first
        status, said = await call(session, "POST", "/v1/tasks", {**OPENING, "purpose": "x"}, Idempotency_Key="k")
        assert (status, said["code"]) == (409, "idempotency-key-reused")
        await call(session, "POST", f"/v1/tasks/{first}/end", {})
        assert await opened_with(session, "k") == first
        async with house.session(house.agent(instance=OTHER)) as another:
            assert await opened_with(another, "k") != first
    await house.clock.advance(24 * 3600 + 1)
    async with house.session(house.agent()) as session:
        assert await opened_with(session, "k") != first


async def opened_with(session: aiohttp.ClientSession, key: str) -> str:
    """Open a task under a key; its id."""
    status, body = await call(session, "POST", "/v1/tasks", OPENING, Idempotency_Key=key)
    assert status == 201, body
    return str(body["task"]["id"])
