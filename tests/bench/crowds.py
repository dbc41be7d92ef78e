"""One event to ten thousand streams: mutual TLS, one enforcement point ten thousand times, an event of a task's end.

As `streams.py`, tenfold; it takes minutes, most of them for twenty thousand handshakes.
"""

from __future__ import annotations

from pathlib import Path

from bench.process import module, more_descriptors
from bench.streams import Crowd, shouted, trusting
from bench.table import Row, Unit, time_rows

STREAMS = 10_000
_TIMES = 12


async def measure(folder: Path) -> list[Row]:
    """Time to the last, and memory of each."""
    more_descriptors()
    crowd = Crowd(STREAMS, _TIMES)
    raw_memory, raw = await shouted(folder, crowd)
    async with module("event_server", str(folder)) as server:
        host, port = server.said["address"]
        context = trusting()
        context.load_cert_chain(server.said["pem"])
        request = f"GET /v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        memory = await crowd.gather(server, host, int(port), context, request)

        async def end(_: int) -> None:
            server.tell("end")

        ours = await crowd.all_hear(end)
        crowd.leave()
    limit = f"`transport.write` to {STREAMS:,} TLS connections"
    return [
        *time_rows("crowds", f"an event to the last of {STREAMS:,} streams", ours, raw, limit),
        Row(
            bench="crowds",
            what=f"memory of one of {STREAMS:,} idle streams",
            unit=Unit.KIBIBYTES,
            ours=memory,
            limit=raw_memory,
            limit_is="an idle TLS connection of asyncio",
            n=STREAMS,
        ),
    ]
