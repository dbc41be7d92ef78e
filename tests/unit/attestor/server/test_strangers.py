"""Whoever has no certificate yet: how often it may try, and how many places it may take."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from attestor._proto import node_pb2 as pb
from attestor.server.node_api import BURST
from attestor.server.serve import serve
from attestor.server.settings import Limits, Listen
from attestor.wire import node as wire
from ca.runtime.clock import SystemClock
from ca.runtime.metrics import Metrics
from ca.runtime.process import Readiness
from fakes.attestor_parts import csr
from fakes.clock import ManualClock
from fakes.node_client import connected, pinned, server_settings


async def tried(channel: Channel) -> Status:
    """How one attestation by a method that is none ends."""
    call = channel.request(wire.ATTEST, Cardinality.STREAM_STREAM, pb.AttestRequest, pb.AttestResponse)
    try:
        async with call as stream:
            await stream.send_message(wire.encode_begin("password", csr()), end=True)
            await stream.recv_message()
    except GRPCError as error:
        return error.status
    return Status.OK


async def test_one_address_has_only_so_many_tries(tmp_path: Path) -> None:
    """Each may cost a cluster a review, or the store a write."""
    async with (
        asyncio.timeout(60),
        serve(server_settings(tmp_path), ManualClock(SystemClock().now()), Readiness()) as server,
        connected(server.address, None, pinned(server.root_key_hash)) as channel,
    ):
        ends = Counter([await tried(channel) for _ in range(BURST + 20)])
        assert ends == {Status.UNAUTHENTICATED: BURST, Status.RESOURCE_EXHAUSTED: 20}


async def test_connections_over_the_limit_of_the_settings_are_closed(tmp_path: Path) -> None:
    """Of both listeners, each by itself: whoever says nothing is in nobody's way at the other."""
    limits, public = Limits(connections=4), Listen()
    metrics = Metrics()
    settings = server_settings(tmp_path, limits=limits, public=public)
    async with asyncio.timeout(60), serve(settings, SystemClock(), Readiness(), metrics) as server:
        assert server.public_address is not None
        with ExitStack() as guests:
            for address in (server.address, server.public_address):
                for _ in range(2):
                    await knock(guests, address)
                assert await asyncio.get_running_loop().sock_recv(await knock(guests, address), 1) == b""
    assert metrics.value("sojourn_connections_refused_total", reason="one-caller") == 2


async def knock(guests: ExitStack, address: tuple[str, int]) -> socket.socket:
    """Connect, and say nothing."""
    guest = guests.enter_context(socket.socket())
    guest.setblocking(False)
    with suppress(ConnectionResetError):
        await asyncio.get_running_loop().sock_connect(guest, address)
    return guest
