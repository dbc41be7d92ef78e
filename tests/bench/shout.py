"""Writes the same bytes to many TLS connections, and nothing else: `python -m bench.shout FOLDER` for `streams.py`.

A connection that sends `hear` is written to from then on; each line of standard input is a shout.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.process import heard, more_descriptors, say


class Mouth(asyncio.Protocol):
    """One connection."""

    ears: list[asyncio.WriteTransport]

    def __init__(self, ears: list[asyncio.WriteTransport]) -> None:
        self.ears = ears

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Whoever wants to hear is answered."""
        del data
        self.ears.append(self.transport)
        self.transport.write(b"event: beat\n\n")


def context(folder: Path) -> ssl.SSLContext:
    """A server's, with a certificate of its own making."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "shout.pem").write_bytes(pem)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "shout.pem")
    made.num_tickets = 0
    return made


async def main(folder: Path) -> None:
    """Until nobody says anything any more."""
    more_descriptors()
    ears: list[asyncio.WriteTransport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Mouth(ears), "127.0.0.1", 0, ssl=context(folder), backlog=512)
    say({"address": server.sockets[0].getsockname()})
    while (words := await heard()) is not None:
        data = str(words).encode()
        for ear in ears:
            ear.write(data)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
