"""The first SVID over a new Workload API connection, beside a gRPC server that attests nobody.

Same process: a new connection of a process that is known; it is attested anew and gets the leaf that is held for it.
New process: nothing is held, so a key is made, the instance journalled, the server asked what it may have and to sign.
"""

from __future__ import annotations

from pathlib import Path

from bench.knock import first_message
from bench.process import Other, module
from bench.table import Row, rate_rows, time_rows
from bench.timing import Load, Spread, cpu_seconds, now
from bench.whole import whole

_CONNECTIONS, _PROCESSES, _WARM = 1500, 150, 10
_BARE = "bare gRPC over a new connection, the answer made beforehand"
_MAKES = "bare gRPC over a new connection, key made and leaf signed"


async def measure(folder: Path) -> list[Row]:
    """Both kinds of caller."""
    async with module("bare_grpc", str(folder)) as bare:
        raw = await _same_process(bare.said["socket"], "answer", bare)
        raw_new = await _new_processes(bare.said["socket"], "make")
    async with whole(folder) as up:
        new = await _new_processes(up.socket, "ours")  # first: what descends from an agent is given nothing of its own
        ours = await _same_process(up.socket, "ours", up.process)
    connections = rate_rows("first_svid", "new connections of one process", ours, raw, _BARE, per_core=True)
    return [
        *time_rows("first_svid", "first SVID, same process", ours.each, raw.each, _BARE),
        *connections,
        *time_rows("first_svid", "first SVID, new process", new, raw_new, _MAKES),
    ]


async def _same_process(socket: str, method: str, server: Other) -> Load:
    for _ in range(_WARM):
        await first_message(socket, method)
    begun, cpu = now(), cpu_seconds(server.pid)
    took = [await first_message(socket, method) for _ in range(_CONNECTIONS)]
    return Load(done=_CONNECTIONS, seconds=now() - begun, cpu=cpu_seconds(server.pid) - cpu, each=Spread.of(took))


async def _new_processes(socket: str, method: str) -> Spread:
    async with module("knock", socket, method) as forking:
        await forking.ask(_WARM)
        return Spread.of(await forking.ask(_PROCESSES))
