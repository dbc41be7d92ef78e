"""From an operator's word to the last of a hundred node agents: a leaf is revoked, the list is signed and pushed.

Ours: the order over the admin socket, the transaction, a list of a thousand entries signed and pushed over mutual TLS
to a hundred held streams. Raw is a process that writes as many bytes to a hundred TLS connections and knows nothing
else. Both are heard by this process, which shares the cores. The pause between two lists, two seconds by default, is
off here: whoever revokes twice within it waits for the rest of it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from grpclib.client import Channel

from attestor._proto import node_pb2 as pb
from attestor.client.admin import AdminClient
from attestor.methods.node.join_token import JoinToken
from attestor.wire import node as wire
from attestor.wire.node import LiveSet
from bench.process import module, more_descriptors
from bench.revocation_server import TAKEN_BACK
from bench.table import Row, time_rows
from bench.timing import Spread, now
from ca.spiffe import der
from ca.spiffe.leaf import read
from fakes.attestor_parts import attestation, wants
from fakes.node_client import as_node, ask, attest, following

STREAMS = 100
_TIMES, _WARM = 60, 5
_BYTES = TAKEN_BACK * 39


async def measure(folder: Path) -> list[Row]:
    """Time to the last."""
    more_descriptors()
    raw, ours = await _raw(folder), await _ours(folder)
    limit = f"`transport.write` of {_BYTES // 1000} kB to {STREAMS} TLS connections"
    return time_rows("revocations", f"a revoked leaf to the last of {STREAMS} node agents", ours, raw, limit)


class _Counted:
    """How many have heard."""

    def __init__(self) -> None:
        self._count, self._all = 0, asyncio.Event()

    def one_more(self) -> None:
        """One."""
        self._count += 1
        if self._count >= STREAMS:
            self._all.set()

    async def again(self, cause: Callable[[], Awaitable[object]]) -> Spread:
        """How long from `cause` until everybody has heard, again and again."""
        took = []
        for turn in range(_WARM + _TIMES):
            await asyncio.sleep(0.05)
            self._count = 0
            self._all.clear()
            begun = now()
            await cause()
            async with asyncio.timeout(60):
                await self._all.wait()
            if turn >= _WARM:
                took.append(now() - begun)
        return Spread.of(took)


class _Ear(asyncio.Protocol):
    """Counts bytes: all of a shout have to come."""

    def __init__(self, counted: _Counted) -> None:
        self._counted, self._heard, self.greeted = counted, 0, asyncio.Event()

    def data_received(self, data: bytes) -> None:
        if not self.greeted.is_set():  # its answer is no part of a shout
            self.greeted.set()
            return
        self._heard += len(data)
        if self._heard >= _BYTES:
            self._heard = 0
            self._counted.one_more()


async def _raw(folder: Path) -> Spread:
    counted, loop, plain = _Counted(), asyncio.get_running_loop(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    async with module("shout", str(folder)) as mouth:
        host, port = mouth.said["address"]
        for _ in range(STREAMS):
            transport, ear = await loop.create_connection(lambda: _Ear(counted), host, port, ssl=plain)
            transport.write(b"hear\n")
            await ear.greeted.wait()

        async def shout() -> None:
            mouth.tell("x" * _BYTES)

        return await counted.again(shout)


async def _ours(folder: Path) -> Spread:
    counted = _Counted()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(module("revocation_server", str(folder)))
        address = tuple(server.said["address"])
        admitted = await attest(address, JoinToken.parse(server.said["token"]))
        admin = await stack.enter_async_context(AdminClient(server.said["admin"]))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        channels = [await stack.enter_async_context(as_node(address, admitted)) for _ in range(STREAMS)]
        ready = [asyncio.Event() for _ in channels]
        hearing = [
            group.create_task(_hear(channel, counted, event)) for channel, event in zip(channels, ready, strict=True)
        ]
        for event in ready:
            await event.wait()

        async def revoke() -> None:
            await admin.post("/v1/revocations", {"leaf": leaves.pop()})

        leaves = [await _leaf(channels[0]) for _ in range(_WARM + _TIMES)]
        found = await counted.again(revoke)
        for one in hearing:
            one.cancel()
        await asyncio.wait(hearing)
        return found


async def _hear(channel: Channel, counted: _Counted, ready: asyncio.Event) -> None:
    async with following(channel) as stream:
        await stream.send_message(wire.encode_live(LiveSet(counter=1, instances=frozenset())))
        async for message in stream:
            if not ready.is_set():
                ready.set()
            elif message.update.revocation_lists:
                counted.one_more()


async def _leaf(channel: Channel) -> dict[str, str]:
    """The name of one that was just given."""
    asked = wire.encode_sign([wants("/agent", attestation("unix:uid:1000", counter=9))])
    (signed,) = wire.decode_signed(await ask(channel, wire.SIGN, asked, pb.SignResponse))
    if isinstance(signed, wire.Refusal):
        raise RuntimeError("the server refused to sign a leaf of the bench")  # noqa: TRY004 -- not a type of ours
    (first, *_) = der.split(signed.chain, "a chain", 8)
    leaf = der.certificate(first, "a chain")
    return {"issuer_key_id": (read(leaf).authority_key_id or b"").hex(), "serial": f"{leaf.serial_number:x}"}
