"""Whom a real broker refuses, and that a refusal changes nothing."""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from attestor.client.http import client_session
from attestor.client.source import X509Source
from broker.client.broker import Broker
from broker.errors import KeyReused
from broker.model.scope import Sensitivity
from broker.wire.credentials import AskCredential
from broker.wire.tasks import OpenTask, ScopeBody, TaskTold
from ca.errors import NotFound
from ca.runtime.clock import SystemClock
from ca.spiffe.x509svid import X509Svid
from fakes.pki import TestAuthority
from journeys.orders import Orders, orders
from journeys.processes import PATIENCE, Running, python, started
from journeys.up import TRUST_DOMAIN, RunningUp, up

_REQUEST = b"GET /v1/roles HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n"
_SCOPE = ScopeBody(roles=["*"], sensitivity=Sensitivity.INTERNAL)


async def answered(running: RunningUp, context: ssl.SSLContext) -> bytes:
    """What a client with this context gets to read of the broker: nothing, when it is refused in the handshake."""
    where = urlsplit(running.address)
    async with asyncio.timeout(PATIENCE):
        try:
            reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context)
        except (ssl.SSLError, ConnectionError):
            return b""
        try:
            writer.write(_REQUEST)
            return await reader.read()
        except (ssl.SSLError, ConnectionError):
            return b""
        finally:
            writer.transport.abort()


def showing(svid: X509Svid | None) -> ssl.SSLContext:
    """A client that shows `svid` and believes whatever server answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if svid is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(svid.chain_pem() + svid.key_pem())
            file.flush()
            context.load_cert_chain(file.name)
    return context


@asynccontextmanager
async def own(running: RunningUp) -> AsyncIterator[tuple[X509Source, Broker, TaskTold]]:
    """This very process as an agent with a task."""
    async with (
        X509Source.open(running.workload_api) as source,
        Broker.connect(source, running.address) as broker,
    ):
        opened = await broker.open_task(OpenTask(purpose="own", scope=_SCOPE))
        yield source, broker, opened.task


@asynccontextmanager
async def another(place: Orders) -> AsyncIterator[tuple[Running, Mapping[str, Any]]]:
    """An agent in a process of its own, with a task and a lease."""
    environment = {"SPIFFE_ENDPOINT_SOCKET": place.up.workload_api, "SOJOURN_BROKER": place.up.address}
    folder = place.up.places.state.parent
    async with started(*python("agent.py"), folder=folder, name="agent", environment=environment) as agent:
        await agent.say("open")
        opened = json.loads(await agent.line('"task"'))
        await agent.say("obtain orders-db/readonly")
        yield agent, opened | json.loads(await agent.line('"lease"'))


async def test_a_peer_without_our_certificate_reads_nothing() -> None:
    """None at all, one of a foreign trust domain, one of a stranger that claims to be of ours; the log says why."""
    now = SystemClock().now()
    foreign, impostor = TestAuthority("foreign.test", now=now), TestAuthority(TRUST_DOMAIN, now=now)
    async with up() as running:
        for svid in (
            None,
            foreign.leaf("/agents/0"),
            foreign.leaf("/sojourn/broker"),
            impostor.leaf("/agents/0"),
            impostor.leaf("/sojourn/broker"),
        ):
            assert await answered(running, showing(svid)) == b""
        async with X509Source.open(running.workload_api) as source:
            assert b"200 OK" in await answered(running, showing(source.svid))
        async with running.operator() as operator:
            assert (await operator.tasks()).items == []
        log = [json.loads(line) for line in running.running.errors.read_text().splitlines()]
        reasons = [line["reason"] for line in log if line["event"] == "a client was refused"]
        assert len(reasons) == 5
        assert "did not return a certificate" in reasons[0]
        assert all("certificate" in reason for reason in reasons)


async def test_the_lease_of_another_task_is_none_of_ours() -> None:
    """Not to be seen, acknowledged, renewed or given back by its id: ids are no capabilities."""
    async with orders() as place, another(place) as (agent, theirs), own(place.up) as (_, broker, task):
        with pytest.raises(NotFound):
            await broker.task(theirs["task"])
        with pytest.raises(NotFound):
            await broker.leases(theirs["task"])
        for refused in (broker.ack, broker.renew, broker.revoke):
            with pytest.raises(NotFound):
                await refused(theirs["lease"])
        with pytest.raises(NotFound):
            await broker.ask(theirs["task"], AskCredential(role="orders-db/readonly"))
        assert [one for one in (await broker.leases(task.id)).items if one.role != "svid/task"] == []
        assert await place.users() == {theirs["username"]}
        async with place.up.operator() as operator:
            (lease,) = [one for one in (await operator.leases(open_only=True)).items if one.role != "svid/task"]
        assert (lease.id, lease.state) == (theirs["lease"], "active")
        connection = await place.room.connect(theirs["username"], theirs["password"])
        assert await connection.fetchval("SELECT count(*) FROM orders") == 3
        await connection.close()
        await agent.say("end")
        assert json.loads(await agent.line('"state"'))["state"] == "done"


async def test_an_idempotency_key_is_for_one_body() -> None:
    """Another body under it is refused and makes nothing; the same one is the same lease."""
    async with orders() as place, own(place.up) as (_, broker, task):
        first = AskCredential(role="orders-db/readonly")
        made = await broker.ask(task.id, first, key="monday")
        with pytest.raises(KeyReused):
            await broker.ask(task.id, AskCredential(role=first.role, ttl=timedelta(seconds=60)), key="monday")
        assert (await broker.ask(task.id, first, key="monday")).lease.id == made.lease.id
        assert await place.users() == {made.fields["username"]}


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "while it comes in"])
async def test_an_oversized_body_is_refused(declared: bool) -> None:  # noqa: FBT001
    """By its declared length, and by counting where none was declared; the answer is a problem+json."""
    body = b'{"purpose": "' + b"x" * (80 * 1024) + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 4096):
            yield body[at : at + 4096]

    async with up() as running, own(running) as (source, broker, _):
        headers = {"Content-Type": "application/json"}
        async with (
            client_session(source, lambda _: True, base_url=running.address) as session,
            session.post("/v1/tasks", data=body if declared else pieces(), headers=headers) as answer,
        ):
            told = await answer.json(content_type="application/problem+json")
        assert (answer.status, told["code"], told["limit"]) == (413, "too-large", 64 * 1024)
        assert len((await broker.tasks()).items) == 1
