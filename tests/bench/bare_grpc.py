"""A gRPC server that knows nobody, for `first_svid.py`: `python -m bench.bare_grpc FOLDER`.

`Answer` sends a message made beforehand, as large as ours; `Make` makes a key and signs a leaf for it first, without
asking who calls and without keeping a record. Both hold the stream, as the Workload API does. `Hold` sends another such
message to all of its streams for each line it hears.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from attestor._proto import workload_pb2 as pb
from attestor.instance import new_id
from bench.knock import BARE_ANSWER, BARE_HOLD, BARE_MAKE
from bench.process import heard, say
from ca.authority import Authority, AuthoritySettings
from ca.keys.memory import MemoryKeyStore
from ca.profiles import x509
from ca.profiles.prepared import Kind
from ca.profiles.template import certificate
from ca.rotation import open_authority
from ca.runtime.clock import SystemClock
from ca.runtime.sqlite import open_sqlite
from ca.spiffe.id import TrustDomain

DOMAIN = TrustDomain.parse("example.org")


class Bare:
    """The handlers."""

    def __init__(self, authority: Authority, clock: SystemClock) -> None:
        self._authority, self._clock = authority, clock
        self.made = pb.X509SVIDResponse()
        self._pushed = asyncio.Event()

    def __mapping__(self) -> dict[str, Handler]:
        """As grpclib wants it."""
        shape = (Cardinality.UNARY_STREAM, pb.X509SVIDRequest, pb.X509SVIDResponse)
        return {
            BARE_ANSWER: Handler(self._answer, *shape),
            BARE_MAKE: Handler(self._make, *shape),
            BARE_HOLD: Handler(self._hold, *shape),
        }

    async def make(self) -> pb.X509SVIDResponse:
        """A key, and a leaf for it."""
        now, ring = self._clock.now(), self._authority.ring
        key = ec.generate_private_key(ec.SECP256R1())
        signer = ring.signer(Kind.ISSUING, now)
        request = x509.LeafRequest(
            id=DOMAIN.member("/agent"), public_key=key.public_key(), instance=new_id(), ttl=timedelta(hours=1)
        )
        prepared = x509.prepare(request, ring.issuer(signer), now)
        leaf = certificate(prepared.tbs, await ring.key(signer).sign(prepared.tbs))
        private = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        svid = pb.X509SVID(
            spiffe_id=str(request.id),
            x509_svid=leaf + (signer.certificate or b""),
            x509_svid_key=private,
            bundle=self._authority.bundle(now).x509_der(),
        )
        return pb.X509SVIDResponse(svids=[svid])

    async def _answer(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(self.made)
        await asyncio.Event().wait()

    async def push(self) -> None:
        """Another message to whoever holds."""
        self.made = await self.make()
        self._pushed.set()
        self._pushed = asyncio.Event()

    async def _hold(self, stream: Any) -> None:
        await stream.recv_message()
        while True:
            pushed = self._pushed
            await stream.send_message(self.made)
            await pushed.wait()

    async def _make(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(await self.make())
        await asyncio.Event().wait()


async def main(folder: Path) -> None:
    """Serve until nobody wants it any more."""
    clock = SystemClock()
    async with (
        open_sqlite(folder / "bare.db") as database,
        open_authority(AuthoritySettings(trust_domain=DOMAIN), database, MemoryKeyStore(), clock) as authority,
    ):
        bare = Bare(authority, clock)
        bare.made = await bare.make()
        server = Server([bare])
        await server.start(path=str(folder / "bare.sock"))
        say({"socket": str(folder / "bare.sock")})
        while await heard() is not None:
            await bare.push()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
