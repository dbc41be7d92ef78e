"""A small gRPC service, and what it saw."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import Channel, UnaryUnaryMethod

from ca.runtime import grpc
from ca.runtime.grpc import GrpcCall
from ca.runtime.unix_socket import credentials


class Service:
    """A few methods, and what they saw."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.hold = asyncio.Event()
        self.held = asyncio.Event()
        self.raises: BaseException | None = None

    def methods(self) -> list[grpc.Method]:
        """Its rows."""
        return [
            grpc.unary("/t.T/Echo", self.echo, StringValue, StringValue),
            grpc.unary("/t.T/Fail", self.fail, StringValue, StringValue),
            grpc.unary("/t.T/Hold", self.wait, StringValue, StringValue),
            grpc.server_stream("/t.T/Count", self.count, StringValue, StringValue),
            grpc.server_stream("/t.T/Follow", self.follow, StringValue, StringValue),
            grpc.bidi("/t.T/Talk", self.talk, StringValue, StringValue),
        ]

    async def echo(self, call: GrpcCall) -> StringValue:
        """Say it again."""
        message = await call.recv()
        who = credentials(call.socket).pid if call.socket.family == socket.AF_UNIX else None
        self.seen.append((who, call.connection.identity, dict(call.metadata), call.remaining, call.peer))
        return StringValue(value=message.value)

    async def fail(self, call: GrpcCall) -> None:
        """Raise what the test put there."""
        await call.recv()
        assert self.raises is not None
        raise self.raises

    async def wait(self, call: GrpcCall) -> StringValue:
        """Answer when the test says so."""
        self.held.set()
        await self.hold.wait()
        return StringValue(value="done")

    async def count(self, call: GrpcCall) -> None:
        """So many numbers."""
        message = await call.recv()
        for number in range(int(message.value)):
            await call.send(StringValue(value=str(number)))

    async def follow(self, call: GrpcCall) -> None:
        """One word, then silence."""
        await call.recv()
        await call.send(StringValue(value="first"))
        await asyncio.Event().wait()

    async def talk(self, call: GrpcCall) -> None:
        """Louder."""
        async for message in call:
            await call.send(StringValue(value=message.value.upper()))


def unary(channel: Channel, name: str) -> UnaryUnaryMethod[StringValue, StringValue]:
    """One of its methods."""
    return UnaryUnaryMethod(channel, f"/t.T/{name}", StringValue, StringValue)
