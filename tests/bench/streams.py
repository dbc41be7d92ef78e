"""One event to a thousand streams, and what a stream that waits costs: mutual TLS, the broker of `sojourn up`.

Ours begins when the agent sends the change of its task and ends when the last of a thousand connections has the event;
meanwhile every stream also gets its beat each second. Raw is a process that writes the same bytes to a thousand TLS
connections and knows nothing else. Both are heard by the same code in this process, which shares the cores.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from attestor.client.tls import client_context
from bench.process import Other, module, more_descriptors
from bench.table import Row, Unit, time_rows
from bench.timing import Spread, now
from bench.whole import Agent, agent, whole
from ca.spiffe.match import IdPattern

STREAMS = 1000
_TIMES, _WARM, _HANDSHAKES = 40, 3, 32
_EVENT = b"event: task."
_LIKE_OURS = "id: 0123456789abcdef.1\nevent: task.changed\ndata: " + 420 * "x" + "\n\n"


async def measure(folder: Path) -> list[Row]:
    """Time to the last, and memory of each."""
    more_descriptors()
    crowd = Crowd(STREAMS, _TIMES)
    raw_memory, raw = await shouted(folder, crowd)
    async with whole(folder) as up, agent(up) as worker:
        task = await worker.open()
        host, port = _address(worker)
        expected = IdPattern.exactly(worker.source.svid.id.trust_domain.member("/sojourn/broker"))
        request = f"GET /v1/events?task={task} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        memory = await crowd.gather(up.process, host, port, client_context(worker.source, expected), request)

        async def change(turn: int) -> None:
            await worker.post(f"/v1/tasks/{task}/state", {"event": "resume" if turn % 2 else "wait"})

        ours = await crowd.all_hear(change)
        crowd.leave()
    limit = f"`transport.write` to {STREAMS:,} TLS connections"
    return [
        *time_rows("streams", f"an event to the last of {STREAMS:,} streams", ours, raw, limit),
        Row(
            bench="streams",
            what="memory of an idle stream",
            unit=Unit.KIBIBYTES,
            ours=memory,
            limit=raw_memory,
            limit_is="an idle TLS connection of asyncio",
            n=STREAMS,
        ),
    ]


async def shouted(folder: Path, crowd: Crowd) -> tuple[float, Spread]:
    """The raw limit: KiB of each connection, and how long until the last has heard."""
    async with module("shout", str(folder)) as mouth:
        host, port = mouth.said["address"]
        memory = await crowd.gather(mouth, host, port, trusting(), b"hear\n")

        async def shout(_: int) -> None:
            mouth.tell(_LIKE_OURS)

        raw = await crowd.all_hear(shout)
        crowd.leave()
    return memory, raw


def trusting() -> ssl.SSLContext:
    """A client's that believes anybody."""
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    return plain


class _Ear(asyncio.Protocol):
    """One reader: says once that it is there, and then each event."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd, self._there = crowd, False

    def data_received(self, data: bytes) -> None:
        if not self._there and b"event: " in data:
            self._there = True
            self._crowd.one_more()
        if _EVENT in data:
            self._crowd.one_more()


class Crowd:
    """So many readers, who hear so many events."""

    def __init__(self, streams: int, times: int) -> None:
        self._streams, self._times = streams, times
        self._count, self._all = 0, asyncio.Event()
        self._transports: list[asyncio.WriteTransport] = []

    def one_more(self) -> None:
        """Somebody heard what all wait for."""
        self._count += 1
        if self._count >= self._streams:
            self._all.set()

    async def gather(self, server: Other, host: str, port: int, context: ssl.SSLContext, request: bytes) -> float:
        """Connect everybody; answers by how many KiB each made `server` grow."""
        places, loop = asyncio.Semaphore(_HANDSHAKES), asyncio.get_running_loop()
        before = server.resident

        async def join() -> None:
            async with places:
                transport, _ = await loop.create_connection(lambda: _Ear(self), host, port, ssl=context)
            transport.write(request)
            self._transports.append(transport)

        async with self._heard_by_all():
            await asyncio.gather(*(join() for _ in range(self._streams)))
        await asyncio.sleep(2)
        return (server.resident - before) / self._streams / 1024

    async def all_hear(self, cause: Callable[[int], Awaitable[None]]) -> Spread:
        """Again and again: how long from `cause` until the last has heard of it."""
        took = []
        for turn in range(_WARM + self._times):
            await asyncio.sleep(0.1)
            begun = now()
            async with self._heard_by_all():
                await cause(turn)
            if turn >= _WARM:
                took.append(now() - begun)
        return Spread.of(took)

    def leave(self) -> None:
        """Disconnect everybody."""
        while self._transports:
            self._transports.pop().abort()

    @asynccontextmanager
    async def _heard_by_all(self) -> AsyncIterator[None]:
        self._count = 0
        self._all.clear()
        yield
        async with asyncio.timeout(600):
            await self._all.wait()


def _address(worker: Agent) -> tuple[str, int]:
    host, _, port = worker.broker.removeprefix("https://").rpartition(":")
    return host, int(port)
