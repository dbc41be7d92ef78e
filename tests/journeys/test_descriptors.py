"""More connections than descriptors: the newest is refused with a sentence, held ones live, operators get through."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

import pytest

from attestor.client.admin import AdminClient
from attestor.client.workload_api import WorkloadApiClient, X509Context
from ca.errors import Unavailable
from journeys.up import RunningUp, up

DESCRIPTORS = 512
RULES = """\
rules:
  - name: crowd
    when: ["unix:uid:0"]
    spiffe_id: /crowd
    x509_ttl: 5s
"""


@asynccontextmanager
async def crowd(running: RunningUp, most: int) -> AsyncIterator[tuple[list[AsyncIterator[X509Context]], str]]:
    """Streams, each on a connection of its own, until one is refused; and the refusal's words."""
    async with AsyncExitStack() as stack:
        held: list[AsyncIterator[X509Context]] = []
        for _ in range(most):
            client = await stack.enter_async_context(WorkloadApiClient(running.workload_api))
            updates = await stack.enter_async_context(aclosing(client.watch_x509()))
            try:
                await anext(updates)
            except Unavailable as refusal:
                yield held, str(refusal)
                return
            held.append(updates)
        raise AssertionError("nobody was refused")


async def test_the_newest_is_refused_and_everything_else_goes_on() -> None:
    """With a hard limit of 512: streams of one user up to its share, then six hundred connections that say nothing."""
    async with (
        up(rules=RULES, descriptors=DESCRIPTORS) as running,
        AdminClient(running.places.node_agent_admin) as admin,
    ):
        async with crowd(running, DESCRIPTORS) as (held, refusal):
            assert len(held) > 20
            assert "gets no more at the moment" in refusal
            with idle(running, 600):
                assert (await admin.get("/v1/health"))["ready"]
                status = await running.sojourn("status", "--json")
                node_agent = json.loads(status.out)["node_agent"]
                assert node_agent["ready"]
                assert node_agent["first_expires_at"] <= node_agent["last_expires_at"]
                assert "without the attestor server the first runs out" in (await running.sojourn("status")).out
                for updates in held:  # each hears of the rotation that is due every few seconds
                    assert (await anext(updates)).svids
                with pytest.raises(Unavailable):
                    await fetched(running)
        for _ in range(1000):
            with suppress(Unavailable):
                assert (await fetched(running)).svids
                break
        else:
            raise AssertionError("it did not recover")


async def fetched(running: RunningUp) -> X509Context:
    """One call on a connection of its own."""
    async with WorkloadApiClient(running.workload_api) as client:
        return await client.fetch_x509()


class idle:  # noqa: N801 - it reads as a word
    """Connections that are opened and say nothing."""

    def __init__(self, running: RunningUp, count: int) -> None:
        self._path, self._count = str(running.places.workload_api), count
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> None:
        for _ in range(self._count):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            with suppress(BlockingIOError, ConnectionError):
                one.connect(self._path)
            self._sockets.append(one)

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()
