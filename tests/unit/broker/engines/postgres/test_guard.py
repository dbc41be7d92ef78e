"""Whoever stands between the broker and a PostgreSQL gets no password, whatever he asks for."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from broker.engines.postgres import open_engine
from broker.engines.postgres.settings import Settings
from broker.engines.protocol import Lent
from broker.errors import TargetDown
from ca.runtime.clock import SystemClock
from fakes.web_pki import WebAuthority
from fakes.world import role
from servers.postgres import Room, postgres
from servers.postgres_place import settings_for
from servers.postgres_tls import pki

CLOCK = SystemClock()
CLEAR, MD5, SASL = 3, 5, 10
MORE = {MD5: b"salt", SASL: b"SCRAM-SHA-256\0\0"}
SSL_REQUEST = 80877103


def message(kind: bytes, body: bytes) -> bytes:
    """One message of the server's."""
    return kind + struct.pack("!i", len(body) + 4) + body


class Impostor:
    """Speaks as PostgreSQL does until it has asked for what it wants; everything it is sent is kept."""

    def __init__(self, authority: WebAuthority | None, asks: int, says: bytes | None = None) -> None:
        self.authority = authority
        self.says = says or message(b"R", struct.pack("!i", asks) + MORE.get(asks, b""))
        self.heard = bytearray()
        self.greeted = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            return
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await self._packet(reader)
        if struct.unpack("!i", first[:4])[0] == SSL_REQUEST:
            if self.authority is None:
                writer.write(b"N")
                await writer.drain()
                self.heard += await reader.read(65536)
                return
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self.authority.server("127.0.0.1"))
            await self._packet(reader)
        self.greeted += 1
        for at in range(len(self.says)):  # byte by byte: what is asked for may come in any pieces
            writer.write(self.says[at : at + 1])
            await writer.drain()
            await CLOCK.sleep(0)
        self.heard += await reader.read(65536)

    async def _packet(self, reader: asyncio.StreamReader) -> bytes:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        return await reader.readexactly(length - 4)


@asynccontextmanager
async def impostor(authority: WebAuthority | None, asks: int, says: bytes | None = None) -> AsyncIterator[Impostor]:
    """One that listens."""
    made = Impostor(authority, asks, says)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    """A room of a server that speaks TLS."""
    async with postgres(options=pki().options()) as server, server.room() as found:
        yield found


async def names(settings: Settings) -> list[str]:
    """The simplest thing an engine does."""
    async with open_engine(settings, Lent(clock=CLOCK)) as engine:
        return list(await engine.names("sj_nobody00_"))


@pytest.mark.parametrize("asks", [CLEAR, MD5], ids=["clear", "md5"])
@pytest.mark.parametrize("tls", ["off", "require"])
async def test_an_impostor_who_asks_for_the_password_gets_none(room: Room, tls: str, asks: int) -> None:
    """Neither it nor its hash; on the wire in clear, and inside a TLS nobody verified."""
    async with impostor(WebAuthority("anybody"), asks) as middle:
        with pytest.raises(TargetDown, match="got none") as refused:
            await names(settings_for(room, port=middle.port, tls=tls))
    password, user = room.admin_password.encode(), room.admin.encode()
    hashed = hashlib.md5(hashlib.md5(password + user).hexdigest().encode() + b"salt").hexdigest().encode()
    assert middle.greeted == 1
    assert bytes(middle.heard) == b""
    assert password not in middle.heard
    assert hashed not in middle.heard
    assert room.admin_password not in f"{refused.value!r}{refused.value.__cause__!r}{refused.value.__context__!r}"


HOSTILE = {
    "a question after a notice": message(b"N", b"SNOTICE\0\0") + message(b"R", struct.pack("!i", CLEAR)),
    "a question with more behind it": message(b"R", struct.pack("!i", CLEAR) + b"more"),
    "a question without a number": message(b"R", b""),
    "a kind nobody knows": message(b"R", struct.pack("!i", 99)),
    "kerberos": message(b"R", struct.pack("!i", 7)),
    "a negative kind": message(b"R", struct.pack("!i", -1)),
    "a length below its own": b"R" + struct.pack("!i", 3),
    "a negative length": b"R" + struct.pack("!i", -1),
    "a length of two gigabytes": b"R" + struct.pack("!i", 2**31 - 1),
}


@pytest.mark.parametrize("says", HOSTILE.values(), ids=HOSTILE)
async def test_nothing_else_gets_it_either(room: Room, says: bytes) -> None:
    """Whatever is said before we are let in, and in whatever pieces it comes."""
    async with impostor(None, CLEAR, says) as middle:
        with pytest.raises(TargetDown):
            await names(settings_for(room, port=middle.port, tls="off"))
    assert middle.greeted == 1
    assert bytes(middle.heard) == b""


async def test_an_honest_question_is_answered_by_a_proof(room: Room) -> None:
    """The impostor of these tests is one: asked by SCRAM, the broker does speak to it, and shows no password."""
    async with impostor(None, SASL) as middle:
        with pytest.raises(TargetDown):
            await names(settings_for(room, port=middle.port, tls="off"))
    assert middle.heard.startswith(b"p")
    assert b"SCRAM-SHA-256" in middle.heard
    assert room.admin_password.encode() not in middle.heard


@pytest.mark.parametrize("authority", [None, WebAuthority("another")], ids=["no TLS", "another CA"])
async def test_verify_speaks_to_nobody_else(room: Room, authority: WebAuthority | None) -> None:
    """Not even a name is told to who can't show the server's certificate."""
    async with impostor(authority, CLEAR) as middle:
        with pytest.raises(TargetDown, match="can't be reached"):
            await names(settings_for(room, port=middle.port, tls="verify", tls_ca=pki().trusted))
    assert middle.greeted == 0
    assert room.admin.encode() not in middle.heard


async def test_require_never_falls_back_to_clear(room: Room) -> None:
    """A server, or who stands before it, that offers no TLS is not spoken to."""
    async with impostor(None, CLEAR) as middle:
        with pytest.raises(TargetDown, match="can't be reached"):
            await names(settings_for(room, port=middle.port, tls="require"))
    assert middle.greeted == 0
    assert bytes(middle.heard) == b""


@pytest.mark.parametrize("tls", ["require", "verify"])
async def test_a_real_server_is_reached_by_tls(room: Room, tls: str) -> None:
    """And our sessions are encrypted."""
    settings = settings_for(room, tls=tls, tls_ca=pki().trusted if tls == "verify" else None)
    async with open_engine(settings, Lent(clock=CLOCK)) as engine:
        assert not list(await engine.names("sj_nobody00_"))
        owner = await room.connect()
        rows = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'sojourn'"
        assert [row["ssl"] for row in await owner.fetch(rows)] == [True]
        await owner.close()


async def test_verify_refuses_a_good_certificate_of_another_name(room: Room) -> None:
    """127.0.0.1 stands in it, `localhost` does not."""
    assert await names(settings_for(room, host="127.0.0.1", tls="verify", tls_ca=pki().trusted)) == []
    with pytest.raises(TargetDown, match="SSLCertVerificationError"):
        await names(settings_for(room, host="localhost", tls="verify", tls_ca=pki().trusted))


async def test_verify_refuses_a_ca_that_was_not_named(room: Room, tmp_path: Path) -> None:
    """The server is a real one; whom it was certified by is the operator's to say."""
    other = tmp_path / "other.pem"
    other.write_bytes(WebAuthority("another").pem)
    with pytest.raises(TargetDown, match="SSLCertVerificationError"):
        await names(settings_for(room, tls="verify", tls_ca=other))


async def test_what_is_told_to_agents_is_what_they_are_asked_for(room: Room) -> None:
    """`verify` is `verify-full` to libpq."""
    said = settings_for(room, tls="verify", tls_ca=pki().trusted)
    async with open_engine(said, Lent(clock=CLOCK)) as engine:
        the_role = role(engine="postgres", settings={"groups": [room.groups[0]]})
        until = CLOCK.now() + timedelta(seconds=60)
        issued = await engine.create(engine.plan(the_role, "sj_nobody00_" + "a" * 20), the_role, until, until)
        assert issued.secret["url"].reveal().endswith("?sslmode=verify-full")
        await engine.end_access(engine.plan(the_role, "sj_nobody00_" + "a" * 20))
        await engine.clean_up(engine.plan(the_role, "sj_nobody00_" + "a" * 20))
