"""T35: streams to the attestor server, held by somebody who was a node, or the broker, when they were opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import Message
from grpclib.client import Channel, Stream
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from attestor._proto import node_pb2 as pb
from attestor._proto import task_pb2
from attestor.instance import new_id
from attestor.server.serve import Server, serve
from attestor.wire import node as wire
from attestor.wire import task
from attestor.wire.node import LiveSet
from ca.runtime.clock import SystemClock
from ca.runtime.process import Readiness
from fakes.attestor_parts import attestation, wants
from fakes.node_client import (
    KEY,
    Hearing,
    as_node,
    ask,
    attest,
    connected,
    following,
    material,
    server_settings,
    until,
    watching,
)

SPKI = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
DAYS = 30 * 86400.0


@dataclass
class Ahead:
    """The machine's time, and how far a test is ahead of it; both readings move alike, so it is trusted."""

    by: float = 0.0

    def clock(self) -> SystemClock:
        """For the server."""
        real = SystemClock()
        return SystemClock(
            wall=lambda: real.now().timestamp() + self.by,
            boot=lambda: real.boot() + self.by,
        )


@dataclass
class Held:
    """A server, a node's connection with the stream it follows, and a broker's with the one it watches."""

    ahead: Ahead
    server: Server
    node: Channel
    follow: Stream[Any, Any]
    broker: Channel
    watch: Stream[Any, Any]


@asynccontextmanager
async def ended(held_open: AbstractAsyncContextManager[Stream[Any, Any]]) -> AsyncIterator[Stream[Any, Any]]:
    """A stream that the server ends in the middle; it says so once more when it is left, and that is no failure."""
    told = False
    try:
        async with held_open as stream:
            yield stream
            told = True
    except (GRPCError, StreamTerminatedError):
        if not told:
            raise


@asynccontextmanager
async def held(folder: Path) -> AsyncIterator[Held]:
    """Everything open, everybody still who they were."""
    ahead = Ahead()
    async with asyncio.timeout(60), serve(server_settings(folder), ahead.clock(), Readiness()) as server:
        admitted = await attest(server.address, await server.issue_token("n"))
        async with as_node(server.address, admitted) as node, ended(following(node)) as follow:
            broker = attestation("unix:self:true")
            await follow.send_message(wire.encode_live(LiveSet(counter=1, instances=frozenset({broker.instance}))))
            await until(follow, wire.decode_followed, lambda _: True)
            asked = wire.encode_sign([wants("/sojourn/broker", broker, SPKI)])
            (signed,) = wire.decode_signed(await ask(node, wire.SIGN, asked, pb.SignResponse))
            assert isinstance(signed, wire.Signed)
            shown = material(signed.chain, admitted.bundle.document, admitted.bundle.trust_domain)
            async with connected(server.address, shown, lambda _: "server") as link, ended(watching(link)) as watch:
                await watch.send_message(task.encode_watch([broker.instance]), end=True)
                await until(watch, task.decode_watched, lambda step: isinstance(step, task.Snapshot))
                yield Held(ahead, server, node, follow, link, watch)


async def end_of(stream: Stream[Any, Any]) -> Status:
    """What a stream ends with."""
    try:
        while await stream.recv_message() is not None:
            pass
        await stream.recv_trailing_metadata()
    except GRPCError as ended:
        return ended.status
    return Status.OK


async def follow_into_next_month(node: Channel, ahead: Ahead) -> None:
    """Hear the stream to its end, which comes when the leaf has long expired."""
    async with following(node) as stream:
        hear = Hearing()
        await until(stream, hear, lambda _: True)
        ahead.by = DAYS
        await until(stream, hear, lambda _: False)


async def refusal(channel: Channel, path: str, request: Message, reply: type[Message]) -> Status:
    """What a call is refused with, which may be before it was read."""
    with pytest.raises((GRPCError, StreamTerminatedError)) as refused:
        await ask(channel, path, request, reply)
    return refused.value.status if isinstance(refused.value, GRPCError) else Status.UNAUTHENTICATED


async def test_a_node_s_stream_and_calls_end_with_its_leaf(tmp_path: Path) -> None:
    """It is told nothing any more, its live set is not heard, and nothing is signed over the connection it has."""
    ahead = Ahead()
    async with asyncio.timeout(60), serve(server_settings(tmp_path), ahead.clock(), Readiness()) as server:
        admitted = await attest(server.address, await server.issue_token("n"))
        async with as_node(server.address, admitted) as node:
            with pytest.raises(GRPCError) as over:
                await follow_into_next_month(node, ahead)
            assert over.value.status is Status.UNAUTHENTICATED
            of = attestation("unix:uid:7")
            for path, request, reply in (
                (wire.RENEW, pb.RenewRequest(csr=b"x"), pb.Admission),
                (wire.RESOLVE, wire.encode_resolve([of]), pb.ResolveResponse),
                (wire.SIGN, wire.encode_sign([wants("/agent", of)]), pb.SignResponse),
            ):
                assert await refusal(node, path, request, reply) is Status.UNAUTHENTICATED


async def test_the_broker_s_stream_and_calls_end_with_its_leaf(tmp_path: Path) -> None:
    """Who held the broker's key last month hears of nobody's end today."""
    async with held(tmp_path) as one:
        one.ahead.by = DAYS
        assert await end_of(one.watch) is Status.UNAUTHENTICATED
        with pytest.raises(GRPCError) as refused:
            await ask(one.broker, task.BIND, task.encode_bind(new_id()), task_pb2.BindResponse)
        assert refused.value.status is Status.UNAUTHENTICATED


async def test_the_broker_s_stream_and_calls_end_with_its_instance(tmp_path: Path) -> None:
    """The process is gone; whoever has its key and its connection is nobody."""
    async with held(tmp_path) as one:
        await one.follow.send_message(wire.encode_live(LiveSet(counter=2, instances=frozenset())))
        assert await end_of(one.watch) is Status.PERMISSION_DENIED
        with pytest.raises(GRPCError) as refused:
            await ask(one.broker, task.BIND, task.encode_bind(new_id()), task_pb2.BindResponse)
        assert refused.value.status is Status.PERMISSION_DENIED
