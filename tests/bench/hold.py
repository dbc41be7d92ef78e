"""Many held streams of one process, for `rotation.py`: `python -m bench.hold SOCKET METHOD STREAMS`.

A hundred streams share a connection. It says the leaf it was given once every stream has one, and, when every stream
has got another, for how long the first of them waited for the last.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from cryptography import x509
from grpclib.client import Channel
from grpclib.const import Cardinality

from attestor._proto import workload_pb2 as pb
from attestor.wire.workload import FETCH_X509_SVID, SECURITY_HEADER
from bench.knock import BARE_HOLD
from bench.process import heard, more_descriptors, say
from bench.timing import now
from ca.spiffe import der

PER_CONNECTION = 100
METHODS = {"ours": FETCH_X509_SVID, "bare": BARE_HOLD}


class Crowd:
    """All of the streams, and what became of them."""

    def __init__(self, streams: int) -> None:
        self._streams, self.leaf = streams, b""
        self._there, self._again = 0, list[float]()
        self.gathered, self.turned = asyncio.Event(), asyncio.Event()

    def first(self, leaf: bytes) -> None:
        """One more has its first message."""
        self.leaf, self._there = leaf, self._there + 1
        if self._there == self._streams:
            self.gathered.set()

    def other(self) -> None:
        """One more has another leaf."""
        self._again.append(now())
        if len(self._again) == self._streams:
            self.turned.set()

    def took(self) -> float:
        """Seconds from the first to the last; a further turn may begin."""
        took = max(self._again) - min(self._again)
        self._again.clear()
        self.turned.clear()
        return took


async def hold(channel: Channel, method: str, crowd: Crowd) -> None:
    """One stream."""
    call: Any = channel.request(
        METHODS[method], Cardinality.UNARY_STREAM, pb.X509SVIDRequest, pb.X509SVIDResponse, metadata=[SECURITY_HEADER]
    )
    async with call as stream:
        await stream.send_message(pb.X509SVIDRequest(), end=True)
        message = await stream.recv_message()
        leaf = message.svids[0].x509_svid
        crowd.first(leaf)
        async for message in stream:
            if message.svids[0].x509_svid != leaf:
                leaf = message.svids[0].x509_svid
                crowd.leaf = leaf
                crowd.other()


async def main(socket: str, method: str, streams: int) -> None:
    """Open them, then tell of each turn."""
    more_descriptors()
    crowd = Crowd(streams)
    async with asyncio.TaskGroup() as group:
        holding = []
        for _ in range(streams // PER_CONNECTION):
            channel = Channel(path=socket)
            holding += [group.create_task(hold(channel, method, crowd)) for _ in range(PER_CONNECTION)]
            await asyncio.sleep(0.05)
        await crowd.gathered.wait()
        say(_named(crowd.leaf))
        while await heard() is not None:
            await crowd.turned.wait()
            say({"took": crowd.took(), **_named(crowd.leaf)})
        for one in holding:
            one.cancel()


def _named(chain: bytes) -> dict[str, str]:
    """As an operator names a leaf."""
    leaf = x509.load_der_x509_certificate(der.split(chain, "a chain", 8)[0])
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    return {"serial": f"{leaf.serial_number:x}", "issuer_key_id": issuer.hex()}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
