"""Whoever has no certificate yet: how often it may try."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from attestor._proto import node_pb2 as pb
from attestor.server.node_api import BURST
from attestor.server.serve import serve
from attestor.wire import node as wire
from ca.runtime.clock import SystemClock
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
