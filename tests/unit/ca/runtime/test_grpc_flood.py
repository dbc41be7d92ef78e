"""What a peer nobody knows yet can make a gRPC listener keep in memory."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import StreamStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ca.runtime import grpc
from ca.runtime.clock import SystemClock
from ca.runtime.grpc import Connection, Options
from fakes.grpc_service import Service

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
PING = bytes.fromhex("000008060000000000") + b"12345678"
SETTINGS = bytes.fromhex("000000040000000000")
MUCH = 4 * 1024 * 1024


@pytest.mark.parametrize("frame", [PING, SETTINGS], ids=["ping", "settings"])
async def test_answers_nobody_reads_do_not_pile_up(tmp_path: Path, frame: bytes) -> None:
    """Each frame asks for an answer; a peer that sends and never reads is not read any further."""
    accepted: list[Connection] = []
    clock, sent, stuck = SystemClock(), 0, 0
    async with grpc.listen_unix(Service().methods(), tmp_path / "s", options=Options(accept=accepted.append)) as path:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.setblocking(False)
            waiting = GREETING
            while sent < MUCH and stuck < 200:
                waiting = waiting or frame * 4096
                try:
                    done = peer.send(waiting)
                except BlockingIOError:
                    stuck += 1
                else:
                    waiting, sent, stuck = waiting[done:], sent + done, 0
                await clock.sleep(0)
            assert accepted[0].transport.get_write_buffer_size() < MUCH // 4


async def test_a_method_for_strangers_takes_small_messages_only(tmp_path: Path) -> None:
    """Its own limit is below the listener's, and is looked at before the message is waited for."""
    service = Service()
    methods = [
        grpc.bidi("/t.T/Talk", service.talk, StringValue, StringValue, limit=100),
        grpc.bidi("/t.T/Chat", service.talk, StringValue, StringValue),
    ]
    large = StringValue(value="x" * 101)
    async with grpc.listen_unix(methods, tmp_path / "s") as path, grpc.connect_unix(path) as channel:
        assert len(await StreamStreamMethod(channel, "/t.T/Chat", StringValue, StringValue)([large])) == 1
        with pytest.raises(GRPCError) as refused:
            await StreamStreamMethod(channel, "/t.T/Talk", StringValue, StringValue)([large])
    assert refused.value.status is Status.RESOURCE_EXHAUSTED
