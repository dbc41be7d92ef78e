"""gRPC over a real Unix socket and real TLS: the caller's socket, bounded messages, Problems as statuses."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from ca.errors import (
    Conflict,
    Denied,
    Exhausted,
    Malformed,
    NotFound,
    Problem,
    Stale,
    Unauthenticated,
    Unavailable,
)
from ca.runtime import grpc
from ca.runtime.database import Duplicate, StoreFull
from ca.runtime.grpc import Options
from fakes.grpc_service import Service, unary

PROBLEMS = {
    Malformed: Status.INVALID_ARGUMENT,
    Unauthenticated: Status.UNAUTHENTICATED,
    Denied: Status.PERMISSION_DENIED,
    NotFound: Status.NOT_FOUND,
    Conflict: Status.FAILED_PRECONDITION,
    Duplicate: Status.ALREADY_EXISTS,
    Stale: Status.ABORTED,
    Exhausted: Status.RESOURCE_EXHAUSTED,
    Unavailable: Status.UNAVAILABLE,
    StoreFull: Status.UNAVAILABLE,
    Problem: Status.INTERNAL,
}


@pytest.fixture
def service() -> Service:
    """Fresh for each test."""
    return Service()


@pytest.fixture
async def channel(service: Service, tmp_path: Path) -> AsyncIterator[Channel]:
    """A channel to it over a Unix socket."""
    async with grpc.listen_unix(service.methods(), tmp_path / "s") as path, grpc.connect_unix(path) as channel:
        yield channel


async def test_the_caller_is_who_the_kernel_says(service: Service, channel: Channel) -> None:
    """SO_PEERCRED of the accepted socket, with metadata, deadline and peer."""
    answer = await unary(channel, "Echo")(StringValue(value="hi"), metadata={"x-a": "b"}, timeout=60)
    assert answer.value == "hi"
    who, identity, metadata, remaining, peer = service.seen[0]
    assert who == os.getpid()
    assert identity is None
    assert metadata["x-a"] == "b"
    assert 0 < remaining <= 60
    assert peer == "unix"


async def test_messages_stream_both_ways(channel: Channel) -> None:
    """A server stream ends with its handler; a two-way one when the caller has said its last."""
    count = UnaryStreamMethod(channel, "/t.T/Count", StringValue, StringValue)
    assert [message.value for message in await count(StringValue(value="3"))] == ["0", "1", "2"]
    talk = StreamStreamMethod(channel, "/t.T/Talk", StringValue, StringValue)
    answers = await talk([StringValue(value="a"), StringValue(value="b")])
    assert [message.value for message in answers] == ["A", "B"]


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.__name__)
async def test_a_problem_becomes_a_status_with_its_sentence(
    service: Service, channel: Channel, kind: type[Problem]
) -> None:
    """By one table, for subclasses too."""
    service.raises = kind("the sentence — as it is")
    with pytest.raises(GRPCError) as caught:
        await unary(channel, "Fail")(StringValue())
    assert caught.value.status is PROBLEMS[kind]
    assert caught.value.message == "the sentence — as it is"


async def test_what_nobody_foresaw_says_nothing(service: Service, channel: Channel) -> None:
    """INTERNAL, and no word of the exception."""
    service.raises = ValueError("password=hunter2")
    with pytest.raises(GRPCError) as caught:
        await unary(channel, "Fail")(StringValue())
    assert caught.value.status is Status.INTERNAL
    assert "hunter2" not in str(caught.value.message)
    assert "the log knows more under the request" in str(caught.value.message)


async def test_an_unknown_method_is_unimplemented(channel: Channel) -> None:
    """As the standard wants it for what is not there."""
    with pytest.raises(GRPCError) as caught:
        await unary(channel, "Nothing")(StringValue())
    assert caught.value.status is Status.UNIMPLEMENTED


async def test_a_message_over_the_limit_is_refused(service: Service, tmp_path: Path) -> None:
    """By the length it announces."""
    options = Options(limit=1000)
    async with (
        grpc.listen_unix(service.methods(), tmp_path / "s", options=options) as path,
        grpc.connect_unix(path) as channel,
    ):
        assert (await unary(channel, "Echo")(StringValue(value="x" * 900))).value == "x" * 900
        with pytest.raises(GRPCError) as caught:
            await unary(channel, "Echo")(StringValue(value="x" * 1000))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert len(service.seen) == 1


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (struct.pack(">BI", 0, 2**32 - 1), Status.RESOURCE_EXHAUSTED),
        (struct.pack(">BI", 1, 1) + b"x", Status.INVALID_ARGUMENT),
        (struct.pack(">BI", 0, 2) + b"\x0a\xff", Status.INVALID_ARGUMENT),
        (struct.pack(">BI", 0, 100) + b"short", Status.INVALID_ARGUMENT),
        (b"\0\0", Status.INVALID_ARGUMENT),
        (b"", Status.INVALID_ARGUMENT),
    ],
    ids=["announces 4 GiB", "compressed", "no protobuf", "cut short", "half a head", "nothing"],
)
async def test_a_broken_message_is_refused_at_once(channel: Channel, content: bytes, status: Status) -> None:
    """Nothing is waited for that will not come, and nothing is kept in memory."""
    async with channel.request("/t.T/Echo", Cardinality.STREAM_UNARY, StringValue, StringValue) as stream:
        await stream.send_request()
        if content:
            await stream._stream.send_data(content)
        await stream.end()
        with pytest.raises(GRPCError) as caught:  # noqa: PT012 - in which of the two it is heard, is grpclib's choice
            await stream.recv_message()
            await stream.recv_trailing_metadata()
    assert caught.value.status is status


async def test_bytes_that_are_no_http2_end_their_connection_alone(service: Service, tmp_path: Path) -> None:
    """Another connection of the same listener doesn't notice."""
    async with (
        grpc.listen_unix(service.methods(), tmp_path / "s") as path,
        grpc.connect_unix(path) as channel,
    ):
        await unary(channel, "Echo")(StringValue())
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 20)
        await reader.read()
        writer.close()
        assert (await unary(channel, "Echo")(StringValue(value="still"))).value == "still"


async def test_an_unknown_frame_is_ignored(service: Service, tmp_path: Path) -> None:
    """HTTP/2 wants it so: peers send such frames to find out who can't."""
    async with grpc.listen_unix(service.methods(), tmp_path / "s") as path, grpc.connect_unix(path) as channel:
        await unary(channel, "Echo")(StringValue())
        assert channel._protocol is not None
        transport = channel._protocol.connection._transport
        transport.write(b"\x00\x00\x04\xfa\x00\x00\x00\x00\x00abcd")
        assert (await unary(channel, "Echo")(StringValue(value="on"))).value == "on"
        assert channel._protocol.connection._transport is transport
