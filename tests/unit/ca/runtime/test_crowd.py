"""How many connections a listener holds: counted from the accept on, the newest refused, held ones left alone."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import UnaryStreamMethod

from ca.errors import Conflict
from ca.runtime import grpc, web
from ca.runtime.crowd import RESERVE, Crowd, affordable
from ca.runtime.metrics import Metrics
from fakes.clock import ManualClock
from fakes.grpc_service import Service, unary
from fakes.tls_ends import authority, end
from fakes.web_service import WebService


class Guests:
    """Connections that say nothing."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []

    async def come(self, where: tuple[str, int] | Path, source: str = "127.0.0.1") -> socket.socket:
        """One more; it is not waited for what becomes of it."""
        guest = socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET)
        guest.setblocking(False)
        if guest.family == socket.AF_INET:
            guest.bind((source, 0))
        self._open.append(guest)
        with suppress(ConnectionResetError):  # refused as soon as it was there
            address = str(where) if isinstance(where, Path) else where
            await asyncio.get_running_loop().sock_connect(guest, address)
        return guest

    def go(self) -> None:
        """All leave."""
        for guest in self._open:
            guest.close()


@pytest.fixture
async def guests() -> AsyncIterator[Guests]:
    """Gone after the test."""
    found = Guests()
    yield found
    found.go()


async def shut_out(guest: socket.socket) -> bool:
    """Whether the other end closed without a word."""
    try:
        async with asyncio.timeout(60):
            return await asyncio.get_running_loop().sock_recv(guest, 1) == b""
    except ConnectionError:
        return True


async def test_handshakes_nobody_goes_on_with_take_places_and_held_streams_live(guests: Guests) -> None:
    """Strangers who connect and say nothing: over the limit the newest is closed; what is held goes on."""
    metrics, service, clock = Metrics(), Service(), ManualClock()
    ours = authority()
    server, client = end(ours, "/server"), end(ours, "/client")
    crowd = Crowd(4, share=1.0, metrics=metrics)
    listening = grpc.listen_tls(
        service.methods(), host="127.0.0.1", port=0, ssl=server.server(alpn=["h2"]), options=grpc.Options(crowd=crowd)
    )
    async with listening as where, grpc.connect_tls(*where, client.client(alpn=["h2"])) as channel:
        method = UnaryStreamMethod(channel, "/t.T/Follow", StringValue, StringValue)
        async with method.open() as stream:
            await stream.send_message(StringValue(), end=True)
            assert await stream.recv_message() == StringValue(value="first")
            for _ in range(3):
                await guests.come(where)
            assert await shut_out(await guests.come(where))
            assert crowd.held == 4
            assert (await unary(channel, "Echo")(StringValue(value="still here"))).value == "still here"
            guests.go()
            await clock.until(lambda: crowd.held == 1)
            async with grpc.connect_tls(*where, client.client(alpn=["h2"])) as other:
                assert (await unary(other, "Echo")(StringValue(value="hi"))).value == "hi"
            await stream.cancel()
        assert metrics.value("sojourn_connections_refused_total", reason="full") == 1


async def test_a_handshake_that_fails_gives_its_place_back(guests: Guests) -> None:
    """Also one that is no TLS at all."""
    crowd, clock = Crowd(2, share=1.0), ManualClock()
    app = web.application(WebService().routes)
    async with web.listen(
        app, host="127.0.0.1", port=0, ssl=end(authority(), "/server").server(), crowd=crowd
    ) as where:
        for _ in range(5):
            guest = await guests.come(where)
            await asyncio.get_running_loop().sock_sendall(guest, b"GET / HTTP/1.1\r\n\r\n")
            assert await shut_out(guest)
            await clock.until(lambda: crowd.held == 0)


async def test_one_address_gets_no_more_than_half(guests: Guests) -> None:
    """Another finds room."""
    metrics = Metrics()
    crowd = Crowd(4, metrics=metrics)
    app = web.application(WebService().routes)
    async with web.listen(
        app, host="127.0.0.1", port=0, ssl=end(authority(), "/server").server(), crowd=crowd
    ) as where:
        for _ in range(2):
            await guests.come(where)
        assert await shut_out(await guests.come(where))
        await guests.come(where, source="127.0.0.2")
        await ManualClock().until(lambda: crowd.held == 3)
    assert metrics.value("sojourn_connections_refused_total", reason="one-caller") == 1


async def test_users_are_told_apart_on_a_unix_socket(guests: Guests, tmp_path: Path) -> None:
    """By the kernel's word."""
    crowd = Crowd(4)
    async with grpc.listen_unix(Service().methods(), tmp_path / "s", options=grpc.Options(crowd=crowd)) as path:
        for _ in range(2):
            await guests.come(path)
        assert await shut_out(await guests.come(path))
        assert crowd.held == 2


def test_a_refusal_is_said_once_until_somebody_gets_in(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever knocks fills no log."""
    caplog.set_level(logging.WARNING)
    crowd = Crowd(2, share=1.0)
    assert [crowd.take(one) for one in "abcd"] == [True, True, False, False]
    crowd.leave("a")
    assert [crowd.take(one) for one in "ef"] == [True, False]
    assert len(caplog.records) == 2


def test_no_more_than_descriptors_allow() -> None:
    """The rest is for stores, logs, targets and operators; two listeners share it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert affordable(soft * 2) == soft - RESERVE
    assert affordable(soft * 2, 2) == (soft - RESERVE) // 2
    assert affordable(3) == 3


async def test_an_address_that_is_taken_is_named() -> None:
    """And nothing listens half."""
    app = web.application(WebService().routes)
    async with web.listen(app, host="127.0.0.1", port=0) as (host, port):
        with pytest.raises(Conflict, match=f"can't listen at `127.0.0.1:{port}`: address already in use"):
            async with web.listen(web.application(WebService().routes), host=host, port=port):
                pass
