"""T5 on MariaDB: a login whose account was read before the lock, and whose proof comes after it.

The client names a way of logging in that is not the account's; the server answers which it wants, and waits. By then it
has copied the account, unlocked as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from broker.engines.protocol import Issued
from broker.model.lease import Handle
from servers.mariadb_place import MariadbPlace, mariadb_place

_FLAGS = 0x1 | 0x200 | 0x8000 | 0x80000
"""Long password, protocol 4.1, secure connection, plug-in authentication."""


@pytest.fixture
async def place() -> AsyncIterator[MariadbPlace]:
    """A real MariaDB."""
    async with mariadb_place() as found:
        yield found


async def issue(place: MariadbPlace) -> tuple[Handle, Issued]:
    """A principal that may log in."""
    handle = place.engine.plan(place.role, place.prefix + "x" * 20)
    until = place.clock.now() + timedelta(seconds=60)
    return handle, await place.engine.create(handle, place.role, until, until)


class Held:
    """A login by hand, held open where the client likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.number = reader, writer, 0

    @classmethod
    async def greeted(cls, place: MariadbPlace) -> Held:
        """Connected, and nothing said."""
        held = cls(*await asyncio.open_connection(place.room.host, place.room.port))
        await held.read()
        return held

    async def read(self) -> bytes:
        """One packet; empty when the server is gone."""
        try:
            size = await self.reader.readexactly(4)
            self.number = size[3]
            return await self.reader.readexactly(int.from_bytes(size[:3], "little"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def send(self, data: bytes) -> None:
        """One packet."""
        self.writer.write(len(data).to_bytes(3, "little") + bytes([self.number + 1]) + data)
        await self.writer.drain()

    async def name(self, user: str) -> bytes:
        """Say who we are, in a way the account does not use; the salt of the server's question."""
        said = struct.pack("<IIB23x", _FLAGS, 1 << 24, 45) + user.encode() + b"\0\x14" + b"x" * 20
        await self.send(said + b"caching_sha2_password\0")
        answer = await self.read()
        assert answer[:1] == b"\xfe"
        return answer[1:].partition(b"\0")[2][:20]

    async def become(self, user: str) -> bytes:
        """From an open session of somebody else, ask to be `user`; the salt of the server's question."""
        self.number = -1
        await self.send(b"\x11" + user.encode() + b"\0\x14" + b"x" * 20 + b"\0\x2d\0caching_sha2_password\0")
        answer = await self.read()
        assert answer[:1] == b"\xfe"
        return answer[1:].partition(b"\0")[2][:20]

    async def prove(self, salt: bytes, password: str) -> bytes:
        """Answer it; what the server says then."""
        once = hashlib.sha1(password.encode()).digest()
        mask = hashlib.sha1(salt + hashlib.sha1(once).digest()).digest()
        try:
            await self.send(bytes(a ^ b for a, b in zip(once, mask, strict=True)))
        except ConnectionError:
            return b""
        return await self.read()


async def test_without_the_cut_it_would_be_let_in(place: MariadbPlace) -> None:
    """The server's own lock does not stop it: this is what must be looked for."""
    handle, issued = await issue(place)
    held = await Held.greeted(place)
    salt = await held.name(handle.name)
    place.server.ask(f"ALTER USER '{handle.name}'@'%' ACCOUNT LOCK")
    assert (await held.prove(salt, issued.secret["password"].reveal()))[:1] == b"\x00"
    held.writer.close()


async def test_a_login_in_flight_at_the_end_is_never_let_in(place: MariadbPlace) -> None:
    """It is dead before the lease says verified."""
    handle, issued = await issue(place)
    held = await Held.greeted(place)
    salt = await held.name(handle.name)
    async with asyncio.timeout(60):
        ended = await place.engine.end_access(handle)
    assert ended.sessions_cut == 1
    assert (await held.prove(salt, issued.secret["password"].reveal()))[:1] != b"\x00"
    held.writer.close()


async def test_a_session_of_somebody_else_that_is_becoming_it_is_cut_too(place: MariadbPlace) -> None:
    """A change of user reads the account like a login, and can be held open as long."""
    handle, issued = await issue(place)
    place.server.ask(f"CREATE USER 'friend_{place.room.schema}'@'%' IDENTIFIED BY 'friend'")
    held = await Held.greeted(place)
    salt = await held.name(f"friend_{place.room.schema}")
    assert (await held.prove(salt, "friend"))[:1] == b"\x00"
    salt = await held.become(handle.name)
    async with asyncio.timeout(60):
        await place.engine.end_access(handle)
    assert (await held.prove(salt, issued.secret["password"].reveal()))[:1] != b"\x00"
    held.writer.close()
    place.server.ask(f"DROP USER 'friend_{place.room.schema}'@'%'")


async def test_who_has_not_said_a_name_holds_nothing_up_for_long(place: MariadbPlace) -> None:
    """It might be anybody, and is given a second."""
    handle, _ = await issue(place)
    held = await Held.greeted(place)
    async with asyncio.timeout(30):
        ended = await place.engine.end_access(handle)
    assert ended.sessions_cut == 0
    while await held.read():  # a farewell, perhaps, and then nothing
        pass
    held.writer.close()


async def test_a_password_of_its_own_opens_nothing_after_a_replacement(place: MariadbPlace) -> None:
    """Whoever was in could set one; it is overwritten when nobody is in any more."""
    handle, issued = await issue(place)
    assert (
        place.server.client(
            handle.name, issued.secret["password"].reveal(), "SET PASSWORD = PASSWORD('mine')"
        ).returncode
        == 0
    )
    assert await place.knock(handle.name, "mine") is not None
    until = place.clock.now() + timedelta(seconds=60)
    new = await place.engine.replace(handle, place.role, until, until)
    assert await place.knock(handle.name, "mine") is None
    assert await place.login(new) is not None


async def test_a_replacement_that_meets_an_ending_opens_nothing(place: MariadbPlace) -> None:
    """Twenty of both at once: whoever got a secret can't use it once the ending has answered."""
    handle, _ = await issue(place)
    until = place.clock.now() + timedelta(seconds=60)
    replacing = [place.engine.replace(handle, place.role, until, until) for _ in range(10)]
    async with asyncio.timeout(60):
        done = await asyncio.gather(*replacing, place.engine.end_access(handle), return_exceptions=True)
    await place.engine.end_access(handle)
    for one in done:
        if isinstance(one, Issued):
            assert await place.login(one) is None
    assert place.room.sessions() == []
