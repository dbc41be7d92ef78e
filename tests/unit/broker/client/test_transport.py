"""What happens on the way: answers that are lost, streams that break or fall silent."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from attestor.client.errors import Unreachable
from broker.client.broker import Broker
from broker.client.living import LiveTask
from broker.client.transport import Transport
from broker.model.decision import Decision, Effect
from broker.model.ids import new_decision
from broker.wire.credentials import CredentialTold
from broker.wire.events import EventLine
from broker.wire.leases import LeaseTold
from broker.wire.proof import HEADER, new_key, verify
from broker.wire.tasks import TaskTold
from ca.errors import Malformed
from ca.runtime.clock import SystemClock
from ca.runtime.secret import Secret
from ca.runtime.stream import encoded
from ca.runtime.web import Call, Route, application, listen_unix
from fakes.nouns import NOW, lease, task

CLOCK = SystemClock()
TASK = task()
LEASE = lease(TASK)


@asynccontextmanager
async def speaking_to(folder: Path, *routes: Route) -> AsyncIterator[Broker]:
    """A client on a socket behind which `routes` answer."""
    path = folder / "b.sock"
    async with (
        listen_unix(application(routes), path, allow_uids={os.geteuid()}, drain=0.1),
        aiohttp.ClientSession("http://broker", connector=aiohttp.UnixConnector(str(path))) as session,
    ):
        yield Broker(Transport(session=session, where="here", hint="wait", clock=CLOCK, silence=0.2))


class Anything(BaseModel):
    """A body nobody looks at."""

    model_config = ConfigDict(extra="allow")


def _line(number: int) -> str:
    said = {"epoch": f"a.{number}", "kind": "task.changed", "at": "2026-11-23T12:00:00Z", "body": {}}
    return json.dumps({**said, "task": TASK.id, "root": TASK.id})


def cut(call: Call) -> None:
    """The connection is gone without an answer."""
    assert call.request.transport is not None
    call.request.transport.abort()


async def test_a_lost_answer_is_asked_for_again_under_the_same_key(tmp_path: Path) -> None:
    """So the broker makes one secret, and knows that it is the same request."""
    keys: list[str | None] = []
    decision = Decision(
        id=new_decision(NOW), effect=Effect.PERMIT, policies=("a",), reason="b", policy_version="c", decided_at=NOW
    )

    async def ask(call: Call) -> CredentialTold:
        keys.append(call.request.headers.get("Idempotency-Key"))
        if len(keys) == 1:
            cut(call)
        return CredentialTold.of(LEASE, {"port": 1}, {"password": Secret("tulip")}, decision=decision)

    async def ack(call: Call) -> LeaseTold:
        if len(keys) == 2:
            keys.append("acknowledged")
            cut(call)
        return LeaseTold.of(LEASE)

    routes = (
        Route("POST", "/v1/tasks/{id}/credentials", ask, summary="", body=Anything),
        Route("POST", "/v1/leases/{id}/ack", ack, summary="", body=Anything),
    )
    async with asyncio.timeout(60), speaking_to(tmp_path, *routes) as broker:
        held = await LiveTask(broker, TaskTold.of(TASK)).secret("orders-db/readonly")
    assert held["password"].reveal() == "tulip"
    assert keys[0] is not None
    assert keys == [keys[0], keys[0], "acknowledged"]


async def test_a_stream_that_falls_silent_is_taken_up_where_it_was(tmp_path: Path) -> None:
    """Without a beat it counts as broken; nothing is told twice, nothing is lost."""
    cursors: list[str | None] = []
    forever = asyncio.Event()

    async def events(call: Call) -> web.StreamResponse:
        cursors.append(call.request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(call.request)
        number = len(cursors)
        await response.write(encoded(None, "beat", "a.0") + encoded(f"a.{number}", "task.changed", _line(number)))
        await forever.wait()
        return response

    async with asyncio.timeout(60), speaking_to(tmp_path, Route("GET", "/v1/events", events, summary="")) as broker:
        async with aclosing(broker.events()) as stream:
            found = [await anext(stream) for _ in range(3)]
        forever.set()
    assert [one.epoch for one in found if isinstance(one, EventLine)] == ["a.1", "a.2", "a.3"]
    assert cursors == [None, "a.1", "a.2"]


async def test_a_stream_that_begins_now_is_not_begun_anew_after_a_break(tmp_path: Path) -> None:
    """What happened before the first event is not lost: the first beat's cursor is gone on from."""
    cursors: list[str | None] = []

    async def events(call: Call) -> web.StreamResponse:
        cursors.append(call.request.headers.get("Last-Event-ID"))
        response = web.StreamResponse()
        await response.prepare(call.request)
        await response.write(encoded(None, "beat", "a.7"))
        if len(cursors) > 1:
            await response.write(encoded("a.8", "task.changed", _line(8)))
        await response.write(encoded(None, "end", "{}"))
        return response

    async with (
        asyncio.timeout(60),
        speaking_to(tmp_path, Route("GET", "/v1/events", events, summary="")) as broker,
        aclosing(broker.events()) as stream,
    ):
        await anext(stream)
    assert cursors == [None, "a.7"]


async def test_each_request_has_a_proof_of_its_own(tmp_path: Path) -> None:
    """For this method and path, by the key the task was opened with, never the same twice."""
    shown: list[str] = []

    async def one(call: Call) -> TaskTold:
        shown.append(call.request.headers[HEADER])
        return TaskTold.of(TASK)

    key = new_key()
    async with speaking_to(tmp_path, Route("GET", "/v1/tasks/{id}", one, summary="")) as broker:
        for _ in range(2):
            await broker.proven_by(key).task(TASK.id)
    proofs = [verify(header, "GET", f"/v1/tasks/{TASK.id}", CLOCK.now()) for header in shown]
    assert {proof.thumbprint for proof in proofs} == {key.thumbprint()}
    assert proofs[0].id != proofs[1].id


async def test_an_answer_without_end_is_refused(tmp_path: Path) -> None:
    """A broker gone mad can't fill our memory."""

    async def roles(call: Call) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(call.request)
        for _ in range(20):
            await response.write(b" " * 2**20)
        return response

    async with speaking_to(tmp_path, Route("GET", "/v1/roles", roles, summary="")) as broker:
        with pytest.raises(Malformed, match="longer than"):
            await broker.roles()


async def test_an_empty_answer_says_what_it_may_mean(tmp_path: Path) -> None:
    """A refused certificate looks like that."""

    async def roles(call: Call) -> None:
        cut(call)

    async with speaking_to(tmp_path, Route("GET", "/v1/roles", roles, summary="")) as broker:
        with pytest.raises(Unreachable, match="refuses this identity"):
            await broker.roles()
