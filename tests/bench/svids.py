"""SVIDs issued through the server's API, beside the same work without a network.

Ours: a node agent's calls of `Sign`, a hundred leaves in each, over mutual TLS to a server in its own process. Raw: the
same hundred in this process: public key read, leaf prepared, linted, recorded in SQLite, signed. The server does more
for each call than the raw loop: it looks the node up, evaluates ten rules for every item and makes the instance known.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from itertools import cycle
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message
from grpclib.client import Channel

from attestor._proto import node_pb2 as pb
from attestor.instance import new_id
from attestor.methods.node.join_token import JoinToken
from attestor.server.issuance.leaves import Leaves
from attestor.wire import node as wire
from attestor.wire.attestation import Attestation
from attestor.wire.node import LiveSet
from bench.process import module
from bench.table import Row, rate_rows
from bench.timing import Load, Spread, cpu_seconds, now
from ca.authority import AuthoritySettings
from ca.keys.memory import MemoryKeyStore
from ca.profiles.x509 import LeafRequest, read_public_key
from ca.rotation import open_authority
from ca.runtime.clock import SystemClock
from ca.runtime.sqlite import open_sqlite
from fakes.attestor_parts import DOMAIN, attestation, wants
from fakes.node_client import as_node, ask, attest, following, until

BATCH = 100
AT_ONCE = 2
KNOWN = 1000
_SECONDS, _WARM = 4.0, 1.0
_LIMIT = "the same batches in process: read, prepare, lint, record, sign"


async def measure(folder: Path) -> list[Row]:
    """Renewals of a thousand instances, and first leaves of new ones."""
    keys = [_public_key() for _ in range(BATCH)]
    raw = await _raw(folder, keys)
    async with module("svid_server", str(folder)) as server:
        host, port = server.said["address"]
        admitted = await attest((host, port), JoinToken.parse(server.said["token"]))
        async with as_node((host, port), admitted) as channel, following(channel) as stream:
            first = await until(stream, wire.decode_followed, lambda step: isinstance(step, wire.Update))
            known = [attestation("unix:uid:1000", counter=first.live_counter + 1) for _ in range(KNOWN)]
            live = LiveSet(counter=first.live_counter + 1, instances=frozenset(one.instance for one in known))

            async def report() -> None:
                while True:
                    await stream.send_message(wire.encode_live(live))
                    await asyncio.sleep(1)

            async with asyncio.TaskGroup() as group:
                reporting = group.create_task(report())
                again = await _signed(channel, server.pid, cycle(_requests(known, keys)))
                fresh = await _signed(channel, server.pid, _strangers(known[0], keys))
                reporting.cancel()
    return [
        *rate_rows("svids", "SVIDs through the server API, renewed", again, raw, _LIMIT, per_core=True),
        *rate_rows("svids", "SVIDs through the server API, new instances", fresh, raw, _LIMIT, per_core=True),
    ]


def _public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _requests(instances: list[Attestation], keys: list[bytes]) -> list[pb.SignRequest]:
    batches = [instances[at : at + BATCH] for at in range(0, len(instances), BATCH)]
    return [
        wire.encode_sign([wants("/agent", one, key) for one, key in zip(batch, keys, strict=True)]) for batch in batches
    ]


def _strangers(like: Attestation, keys: list[bytes]) -> Iterable[pb.SignRequest]:
    """Instances nobody has seen, with the counter of a live set that is still to come."""
    selectors = [str(one) for one in like.selectors]
    while True:
        fresh = [attestation(*selectors, instance=new_id(), counter=like.counter + 1) for _ in range(BATCH)]
        yield from _requests(fresh, keys)


async def _signed(channel: Channel, pid: int, requests: Iterable[Message]) -> Load:
    waiting = iter(requests)

    async def batch() -> None:
        answer: pb.SignResponse = await ask(channel, wire.SIGN, next(waiting), pb.SignResponse)
        if any(not one.chain for one in answer.results) or len(answer.results) != BATCH:
            raise RuntimeError("the server refused to sign a leaf of the bench")

    return await _repeated(batch, pid)


async def _raw(folder: Path, keys: list[bytes]) -> Load:
    clock, ids = SystemClock(), DOMAIN.member("/agent")
    async with (
        open_sqlite(folder / "raw.db") as database,
        open_authority(AuthoritySettings(trust_domain=DOMAIN), database, MemoryKeyStore(), clock) as authority,
    ):
        leaves, instances = Leaves(authority, database), [new_id() for _ in range(BATCH)]

        async def batch() -> None:
            requests = [
                LeafRequest(id=ids, public_key=read_public_key(key), instance=instance, ttl=timedelta(hours=1))
                for key, instance in zip(keys, instances, strict=True)
            ]
            await leaves.sign(requests, clock.now())

        return await _repeated(batch, os.getpid())


async def _repeated(batch: Callable[[], Awaitable[None]], pid: int) -> Load:
    """`batch` again and again, `AT_ONCE` at the same time; the first second does not count."""
    took: list[float] = []

    async def worker() -> None:
        while True:
            begun = now()
            await batch()
            took.append(now() - begun)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(AT_ONCE)]
        await asyncio.sleep(_WARM)
        took.clear()
        begun, cpu = now(), cpu_seconds(pid)
        await asyncio.sleep(_SECONDS)
        load = Load(done=BATCH * len(took), seconds=now() - begun, cpu=cpu_seconds(pid) - cpu, each=Spread.of(took))
        for one in workers:
            one.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*workers)
    return load
