"""The first message over a new connection: from before connect until it has arrived.

As a process, `python -m bench.knock SOCKET METHOD`: for each line that says a number it forks so many times, one after
the other, and each child, a new process to the kernel and to whoever attests it, asks once. The modules are loaded
already, so what is timed is the connection and the answer, not Python's start.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from grpclib.client import Channel
from grpclib.const import Cardinality

from attestor._proto import workload_pb2 as pb
from attestor.wire.workload import FETCH_X509_SVID, SECURITY_HEADER
from bench.process import say
from bench.timing import now

BARE_ANSWER, BARE_MAKE, BARE_HOLD = "/bare.Bare/Answer", "/bare.Bare/Make", "/bare.Bare/Hold"
METHODS = {"ours": FETCH_X509_SVID, "answer": BARE_ANSWER, "make": BARE_MAKE}


async def first_message(socket: str, method: str) -> float:
    """Seconds until the first message was there."""
    begun = now()
    channel = Channel(path=socket)
    call: Any = channel.request(
        METHODS[method], Cardinality.UNARY_STREAM, pb.X509SVIDRequest, pb.X509SVIDResponse, metadata=[SECURITY_HEADER]
    )
    async with call as stream:
        await stream.send_message(pb.X509SVIDRequest(), end=True)
        message = await stream.recv_message()
        took = now() - begun
        await stream.cancel()
    channel.close()
    if message is None or not message.svids[0].x509_svid:
        raise RuntimeError("no SVID was answered")
    return took


def _in_a_child(socket: str, method: str) -> float:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        took = asyncio.run(first_message(socket, method))
        os.write(writing, json.dumps(took).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        took = json.load(answer)
    os.waitpid(child, 0)
    return float(took)


if __name__ == "__main__":
    say(["ready"])
    for line in sys.stdin:
        say([_in_a_child(sys.argv[1], sys.argv[2]) for _ in range(json.loads(line))])
