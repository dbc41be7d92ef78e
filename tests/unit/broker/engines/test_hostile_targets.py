"""A target that isn't who we think: whatever it answers, it gets no password, and we get a failure and no surprise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from broker.engines import load
from broker.engines.protocol import Lent
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Problem
from ca.runtime.clock import SystemClock

PASSWORD = "the-admins-own-password"

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def packet(number: int, data: bytes) -> bytes:
    """One of MySQL's."""
    return len(data).to_bytes(3, "little") + bytes([number]) + data


GREETING = packet(
    0,
    b"\x0a5.5.5-10.11.0-MariaDB\0" + b"\x01\0\0\0" + b"saltsalt\0" + b"\xff\xf7\x2d\x02\0\xff\x81\x15" + b"\0" * 10
    + b"saltsaltsalt\0mysql_native_password\0",
)  # fmt: skip
OK = b"\0\0\0\x02\0\0\0"


def asks_for(plugin: bytes, data: bytes = b"") -> list[bytes]:
    """A server that wants another way of logging in."""
    return [GREETING, packet(2, b"\xfe" + plugin + b"\0" + data), packet(4, OK)]


MYSQL = {
    "silence": [],
    "garbage": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "an endless packet": [b"\xff\xff\xff\x00" + b"\x0a"],
    "a greeting cut short": [packet(0, b"\x0a5.5")],
    "another protocol": [packet(0, b"\x09" + b"x" * 60)],
    "no version at all": [packet(0, b"")],
    "an error instead": [packet(0, b"\xff\x10\x04Too many connections")],
    "asks for the password in clear": asks_for(b"mysql_clear_password"),
    "asks by dialog": asks_for(b"dialog", b"\x04Password: "),
    "asks for the old form": asks_for(b"mysql_old_password"),
    "asks for what nobody knows": asks_for(b"whatever"),
    "asks for ed25519": asks_for(b"client_ed25519", b"x" * 32),
    "wants a file": [GREETING, packet(2, OK), packet(1, b"\xfb/etc/passwd"), packet(1, b"\xfb/etc/passwd")],
    "answers rows that make no sense": [GREETING, packet(2, OK), packet(1, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff")],
    "answers with a statement": [GREETING, packet(2, OK), packet(1, b"\xff\x28\x04#42000near 'IDENTIFIED AS secret'")],
}
REDIS = {
    "silence": [],
    "garbage": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "a number that is none": [b":x\r\n"],
    "a negative length": [b"*-7\r\n"],
    "an endless text": [b"$99999999999\r\nabc"],
    "deep lists": [b"*1\r\n" * 5000],
    "an error that repeats the question": [b"-ERR unknown 'AUTH the-admins-own-password'\r\n"],
    "still loading": [b"-LOADING Redis is loading\r\n"],
    "no list of users": [b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b":1\r\n"],
}


@asynccontextmanager
async def impostor(answers: list[bytes]) -> AsyncIterator[tuple[int, bytearray]]:
    """Says each of `answers` after it heard something (the first at once for MySQL), then hangs up."""
    heard, serving = bytearray(), list[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        serving.append(me)
        try:
            for number, answer in enumerate(answers):
                if number or not answer.startswith((GREETING[:4], b"\xff\xff\xff", b"HTTP")):
                    heard.extend(await asyncio.wait_for(reader.read(65536), 0.3))
                writer.write(answer)
                await writer.drain()
            heard.extend(await asyncio.wait_for(reader.read(65536), 0.2))
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await asyncio.gather(*serving)


async def refused(kind: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Problem:
    """What the list of names becomes."""
    monkeypatch.setenv("SOJOURN_TEST_HOSTILE", PASSWORD)
    module = load(kind)
    said = {"kind": kind, "host": "127.0.0.1", "port": port, "user": "u", "password": "env:SOJOURN_TEST_HOSTILE"}
    async with module.open_engine(module.Settings.model_validate(said), Lent(clock=SystemClock())) as engine:
        with pytest.raises((TargetDown, OutcomeUnknown)) as raised:
            await engine.names("sj_aaaaaaaa_")
    return raised.value


@pytest.mark.parametrize("answers", MYSQL.values(), ids=list(MYSQL))
async def test_a_mysql_that_is_none_gets_nothing(answers: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """No password, no file; and none of its words in ours."""
    async with impostor(answers) as (port, heard):
        problem = await refused("mysql", port, monkeypatch)
    assert PASSWORD.encode() not in heard
    assert b"root:" not in heard
    assert "secret" not in f"{problem!r}{problem.__cause__!r}"


@pytest.mark.parametrize("answers", REDIS.values(), ids=list(REDIS))
async def test_a_redis_that_is_none_is_down(answers: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its protocol has us say our password first, so `verify` is the default off loopback; it is not repeated."""
    async with impostor(answers) as (port, _):
        problem = await refused("redis", port, monkeypatch)
    assert PASSWORD not in f"{problem!r}{problem.__cause__!r}"
