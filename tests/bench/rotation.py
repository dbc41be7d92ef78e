"""Ten thousand held streams get another leaf: from the first that has it to the last, and the memory of each.

Ours: the streams of one process on the Workload API of `sojourn up`. An operator takes its leaf back, the node agent
has another one signed and tells every stream, after a look at the process before each message. Raw is a gRPC server
that knows nobody and sends a message of the same size to as many streams. Both are heard by the same process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attestor.client.admin import AdminClient
from bench.process import Other, module
from bench.table import Row, Unit, time_rows
from bench.timing import Spread
from bench.whole import whole

STREAMS = 10_000
_TIMES = 3
_BARE = f"bare gRPC, the same message to {STREAMS:,} streams"


async def measure(folder: Path) -> list[Row]:
    """Time to the last, and memory."""
    async with module("bare_grpc", str(folder)) as bare:

        async def push(_: Any) -> None:
            bare.tell("push")

        raw, raw_memory = await _turned(bare, bare.said["socket"], "bare", push)
    async with whole(folder) as up, AdminClient(up.told["admin"]["server"]) as admin:

        async def revoke(leaf: dict[str, str]) -> None:
            named = {"serial": leaf["serial"], "issuer_key_id": leaf["issuer_key_id"]}
            await admin.post("/v1/revocations", {"leaf": named})

        ours, memory = await _turned(up.process, up.socket, "ours", revoke)
    return [
        *time_rows("rotation", f"another leaf to the last of {STREAMS:,} held streams", ours, raw, _BARE),
        Row(
            bench="rotation",
            what="memory of a held stream",
            unit=Unit.KIBIBYTES,
            ours=memory,
            limit=raw_memory,
            limit_is=_BARE,
            n=STREAMS,
        ),
    ]


async def _turned(server: Other, socket: str, method: str, turn: Any) -> tuple[Spread, float]:
    before = server.resident
    async with module("hold", socket, method, str(STREAMS)) as holding:
        memory = (server.resident - before) / STREAMS / 1024
        took, leaf = [], holding.said
        for _ in range(_TIMES):
            holding.tell("turn")
            await turn(leaf)
            leaf = await holding.hear()
            took.append(float(leaf["took"]))
    return Spread.of(took), memory
