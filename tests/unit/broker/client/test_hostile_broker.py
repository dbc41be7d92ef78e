"""Whatever answers in a broker's place: the client says so in a sentence, and shows nobody what it was sent."""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from attestor.client.errors import Unreachable
from attestor.client.tls import server_context
from broker.client.broker import Broker
from broker.client.secret import HeldSecret
from broker.client.task import task
from broker.wire.credentials import AskCredential
from ca.errors import Malformed, Problem
from ca.runtime.web import Call, Route, application, listen
from fakes.doors import CLOCK, PASSWORD, doors
from fakes.pki import TestAuthority

ROLE = "orders-db/readonly"
CANARY = "tulip-canary"
SECRET_ANSWER = json.dumps({"secret": {"password": CANARY}}).encode()


@asynccontextmanager
async def answering(folder: Path, content: bytes) -> AsyncIterator[Broker]:
    """A client of a socket that answers every request with these bytes, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(content)
        writer.close()

    path = folder / "h.sock"
    async with await asyncio.start_unix_server(answer, path), Broker.on_socket(path) as broker:
        yield broker


def http(body: bytes, status: str = "200 OK", *more: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\xff" * 5000,
        b"HTTP/1.1 999 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        http(b"null"),
        http(b"[]"),
        http(b"\xff\xfe"),
        http(b"[" * 200_000),
        http(b'{"items": ' + b"9" * 100_000 + b"}"),
        http(json.dumps({"items": [{"name": CANARY}]}).encode()),
        http(b"{}", "500 Oops"),
        http(b"[" * 200_000, "400 Oops"),
        http(json.dumps({"detail": ["x"], "code": {}, "errors": 7}).encode(), "409 Oops"),
    ],
    ids=range(16),
)
async def test_what_is_no_answer_is_a_problem(tmp_path: Path, content: bytes) -> None:
    """And none of it is repeated."""
    async with asyncio.timeout(60), answering(tmp_path, content) as broker:
        with pytest.raises(Problem) as caught:
            await broker.roles()
    assert CANARY not in str(caught.value)


async def test_a_small_answer_that_unpacks_to_a_large_one_is_refused(tmp_path: Path) -> None:
    """What counts is what it takes here."""
    packed = http(gzip.compress(bytes(64 * 1024 * 1024)), "200 OK", "Content-Encoding: gzip")
    async with asyncio.timeout(60), answering(tmp_path, packed) as broker:
        with pytest.raises(Malformed, match="longer than"):
            await broker.roles()


async def test_nobody_is_sent_elsewhere(tmp_path: Path) -> None:
    """A redirect is a failure: what is asked, and its proof, go nowhere else."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as elsewhere:
        where = elsewhere.sockets[0].getsockname()[1]
        moved = http(b"", "307 Moved", f"Location: http://127.0.0.1:{where}/v1/roles")
        async with asyncio.timeout(60), answering(tmp_path, moved) as broker:
            with pytest.raises(Problem, match="307"):
                await broker.roles()
            async with aclosing(broker.events()) as events:
                with pytest.raises(Problem, match="307"):
                    await anext(events)
    assert heard == []


async def test_a_traceback_with_locals_shows_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As rich, pytest and error trackers print them; nor does any log, of whatever level."""
    caplog.set_level(logging.DEBUG)
    async with asyncio.timeout(60), answering(tmp_path, http(SECRET_ANSWER)) as broker:
        with pytest.raises(Malformed) as caught:
            await broker.ask("t01m8as9hp02jevn86q84mkc47x", AskCredential(role=ROLE))
    assert CANARY not in told(caught.value)
    assert CANARY not in caplog.text


async def test_work_that_fails_with_a_secret_in_its_hands_shows_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Held, in a list, as an argument: every frame down to the body shows dots."""
    caplog.set_level(logging.DEBUG)

    async def fail(secret: HeldSecret) -> None:
        parts = [secret, secret.secrets, secret["password"]]
        raise ValueError(len(parts))

    async def work_and_fail() -> None:
        async with house.as_agent() as broker, task(purpose="x", roles=[ROLE], broker=broker) as work:
            await fail(await work.secret(ROLE))

    async with doors(tmp_path) as house:
        with pytest.raises(ValueError, match="3") as caught:
            await work_and_fail()
    shown = told(caught.value)
    assert "HeldSecret(role='orders-db/readonly'" in shown
    assert PASSWORD.replace("\\", "\\\\") not in shown
    assert PASSWORD not in shown + caplog.text


async def test_a_secret_hides_itself_from_everything_that_prints_or_copies(tmp_path: Path) -> None:
    """Formatted, logged, as JSON, copied, pickled: dots, or an error without it."""
    async with (
        doors(tmp_path) as house,
        house.as_agent() as broker,
        task(purpose="x", broker=broker, roles=[ROLE]) as w,
    ):
        secret = await w.secret(ROLE)
        for one in (secret, secret["password"], secret.secrets):
            assert PASSWORD not in f"{one} {one!r} {one!s} {[one]} %s" % one + format(one)
            for attempt in (copy.deepcopy, pickle.dumps, json.dumps):
                with pytest.raises(TypeError) as caught:
                    attempt(one)
                assert PASSWORD not in str(caught.value)


async def test_another_member_of_the_trust_domain_is_no_broker(tmp_path: Path) -> None:
    """Nor is another authority's that claims the broker's name: refused in the handshake, before a thing is told."""
    heard: list[str] = []

    async def hear(call: Call) -> None:
        heard.append(call.request.path)

    async with doors(tmp_path) as house:
        claimed = TestAuthority(now=CLOCK.now())
        for server in (house.material("/agents/other"), house.material("/sojourn/broker", authority=claimed)):
            app = application((Route("GET", "/v1/roles", hear, summary="roles"),))
            async with (
                listen(app, host="127.0.0.1", port=0, ssl=server_context(server), drain=0.1) as (host, port),
                Broker.connect(house.material(), f"https://{host}:{port}") as broker,
            ):
                with pytest.raises(Unreachable, match="not the broker that is expected"):
                    await broker.roles()
    assert heard == []


def told(error: BaseException) -> str:
    """The traceback with every frame's locals."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(found.format())
