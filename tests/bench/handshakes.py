"""What the check of the peer costs: mutual TLS 1.3 in memory, both ends in this process.

Raw: the same certificates and anchors by two contexts of the library that let in whatever OpenSSL lets in.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from bench.table import Row, Unit
from bench.timing import now
from fakes.tls_ends import End, authority, end

_TURNS = 600


async def measure(folder: Path) -> list[Row]:
    """Both in turns, so that what else the machine does hits both."""
    own = authority()
    server, client = end(own, "/server"), end(own, "/client")
    hooked = (server.server(), client.client())
    plain = (_plain(ssl.PROTOCOL_TLS_SERVER, server, folder), _plain(ssl.PROTOCOL_TLS_CLIENT, client, folder))
    ours = limit = 0.0
    for _ in range(_TURNS // 20):
        ours += _timed(lambda: _shake(*hooked))
        limit += _timed(lambda: _shake(*plain))
    assert len(server.met) == len(client.met) == _TURNS
    return [
        Row(
            bench="handshakes",
            what="mutual TLS handshakes, both ends judge the other's SVID",
            unit=Unit.RATE,
            ours=_TURNS / ours,
            limit=_TURNS / limit,
            limit_is="the same handshakes by OpenSSL alone, no SPIFFE ID looked at",
            n=_TURNS,
        )
    ]


def _timed(what: Callable[[], None]) -> float:
    begun = now()
    for _ in range(20):
        what()
    return now() - begun


def _plain(protocol: int, one: End, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    context.load_verify_locations(cadata=b"".join(one.material.anchors_der))
    path = folder / "pair.pem"
    path.write_bytes(one.material.chain_pem + one.material.key_pem)
    context.load_cert_chain(path)
    return context


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up)]
    while ends:
        for one in tuple(ends):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(one)
