"""What a process on the socket can do to the others: it hurts itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, StreamStreamMethod
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from attestor._proto import workload_pb2 as pb
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent.serve import LONGEST_REQUEST
from attestor.wire import wit
from attestor.wire import workload as wire
from fakes.raw_workload import opened
from fakes.workload import Agent, workload_api

STREAMS = 64
METHODS = [
    (wire.FETCH_X509_SVID, Cardinality.UNARY_STREAM),
    (wire.FETCH_X509_BUNDLES, Cardinality.UNARY_STREAM),
    (wire.FETCH_JWT_SVID, Cardinality.UNARY_UNARY),
    (wire.FETCH_JWT_BUNDLES, Cardinality.UNARY_STREAM),
    (wire.VALIDATE_JWT_SVID, Cardinality.UNARY_UNARY),
    (wit.FETCH_WIT_SVID, Cardinality.UNARY_STREAM),
    (wit.FETCH_WIT_BUNDLES, Cardinality.UNARY_STREAM),
]
BAD = {
    "ends inside a field": b"\x0a\xff",
    "a length beyond everything": b"\x0a\xff\xff\xff\xff\x7f",
    "a wire type nobody knows": b"\x0f",
    "a group that never ends": b"\x0b" * 200,
    "no text": b"\x0a\x02\xc3\x28\x12\x02\xc3\x28",
    "field number nought": b"\x00\x00",
}


class Crooked:
    """A message of any bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def SerializeToString(self) -> bytes:  # noqa: N802 - the name of protobuf
        """As protobuf does."""
        return self._content


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent that listens."""
    async with workload_api(tmp_path) as one:
        yield one


async def outcome(agent: Agent, method: tuple[str, Cardinality], content: bytes, *headers: tuple[str, str]) -> Status:
    """How a call with this message ends; a stream's first message counts as OK."""
    path, cardinality = method
    async with Channel(path=str(agent.path)) as channel:
        request: Any = Crooked
        metadata = [wire.SECURITY_HEADER, *headers]
        try:
            async with channel.request(path, cardinality, request, pb.X509SVIDRequest, metadata=metadata) as stream:
                await stream.send_message(Crooked(content), end=True)
                await stream.recv_message()
                await stream.cancel()
        except GRPCError as error:
            return error.status
        except (StreamTerminatedError, ConnectionError):
            return Status.ABORTED
    return Status.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one[0].rpartition("/")[2])
@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
async def test_what_is_no_message_is_invalid(agent: Agent, method: Any, content: bytes) -> None:
    """A status and no stack; the next caller is served. Text that is none counts only where a text is meant."""
    code = await outcome(agent, method, content)
    empty = method[0] in {
        wire.FETCH_X509_SVID, wire.FETCH_X509_BUNDLES, wire.FETCH_JWT_BUNDLES, wit.FETCH_WIT_BUNDLES
    }  # fmt: skip
    assert code is (Status.OK if empty and content == BAD["no text"] else Status.INVALID_ARGUMENT)
    async with WorkloadApiClient(agent.address) as client:
        assert (await client.fetch_x509()).svids


async def test_a_message_is_as_long_as_a_question_may_be(agent: Agent) -> None:
    """Fields nobody knows are passed over up to the limit; beyond it nothing is waited for."""
    method = METHODS[0]
    unknown = b"\xfa\x01" + b"\x80\x80\x04" + b"x" * 65536
    assert await outcome(agent, method, unknown) is Status.OK
    assert await outcome(agent, method, b"x" * (LONGEST_REQUEST + 1)) is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("size", "code"), [(30_000, Status.OK), (70_000, Status.ABORTED)])
async def test_giant_metadata_ends_its_own_connection(agent: Agent, size: int, code: Status) -> None:
    """What is large but bounded is carried; the other streams do not notice the rest."""
    async with WorkloadApiClient(agent.address) as client, aclosing(client.watch_x509()) as updates:
        await anext(updates)
        assert await outcome(agent, METHODS[0], b"", ("x-much", "m" * size)) is code
        await agent.clock.advance(31 * 60)
        await agent.tick()
        await anext(updates)


async def test_headers_that_never_end_end_their_own_connection(agent: Agent) -> None:
    """A megabyte of continued headers, of which no call ever comes; the frames are written by hand."""
    first = bytes.fromhex("004000" + "01" + "00" + "00000001") + b"x" * 0x4000
    more = bytes.fromhex("004000" + "09" + "00" + "00000001") + b"x" * 0x4000
    reader, writer = await asyncio.open_unix_connection(agent.path)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000") + first + more * 100)
    async with asyncio.timeout(60):
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass
    writer.close()
    async with WorkloadApiClient(agent.address) as client:
        assert (await client.fetch_x509()).svids


async def test_more_streams_than_a_connection_may_have(agent: Agent) -> None:
    """A connection that opens more loses all of its own; nobody else's."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(WorkloadApiClient(agent.address))
        updates = await stack.enter_async_context(aclosing(client.watch_x509()))
        await anext(updates)
        greedy = await stack.enter_async_context(WorkloadApiClient(agent.address))
        streams = [await stack.enter_async_context(aclosing(greedy.watch_x509_bundles())) for _ in range(STREAMS)]
        for stream in streams:
            await anext(stream)
        assert next(iter(agent.holdings)).users == STREAMS + 1
        await agent.clock.advance(31 * 60)
        await agent.tick()
        await anext(updates)


async def test_who_does_not_read_costs_little_and_delays_nobody(agent: Agent) -> None:
    """Sixty streams that are never read: a few messages wait, the rest are never made, and the others get every one."""
    async with AsyncExitStack() as stack, Channel(path=str(agent.path)) as channel:
        for _ in range(STREAMS):
            call = channel.request(
                wire.FETCH_X509_SVID,
                Cardinality.UNARY_STREAM,
                pb.X509SVIDRequest,
                pb.X509SVIDResponse,
                metadata=[wire.SECURITY_HEADER],
            )
            stream = await stack.enter_async_context(call)
            await stream.send_message(pb.X509SVIDRequest(), end=True)
        await agent.clock.until(lambda: sum(held.users for held in agent.holdings) == STREAMS)
        slow = (await channel.__connect__()).connection._transport
        slow.pause_reading()
        client = await stack.enter_async_context(WorkloadApiClient(agent.address))
        updates = await stack.enter_async_context(aclosing(client.watch_x509()))
        await anext(updates)
        for _ in range(60):
            await agent.clock.advance(31 * 60)
            await agent.tick()
            async with asyncio.timeout(60):
                await anext(updates)
        held_back = [one.transport.get_write_buffer_size() for one in agent.accepted if one.transport]
        assert sum(held_back) < 1024 * 1024
        slow.abort()
        await agent.clock.until(lambda: sum(held.users for held in agent.holdings) == 1)


async def test_a_stream_without_its_message_is_invalid(agent: Agent) -> None:
    """It ends before it began."""
    async with Channel(path=str(agent.path)) as channel:
        method = StreamStreamMethod(channel, wire.FETCH_X509_SVID, pb.X509SVIDRequest, pb.X509SVIDResponse)
        with pytest.raises(GRPCError) as refused:
            await method([], metadata=[wire.SECURITY_HEADER])
    assert refused.value.status is Status.INVALID_ARGUMENT


async def test_a_caller_that_leaves_in_the_middle_leaves_nothing(agent: Agent) -> None:
    """Neither a call nor a descriptor, however often."""
    for _ in range(20):
        async with opened(agent) as stream:
            await stream.next()
    await agent.clock.until(lambda: sum(held.users for held in agent.holdings) == 0)
    assert len(agent.holdings) == 1
