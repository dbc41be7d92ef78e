"""What agents and strangers do at a target themselves, one kind after the other: log in, plant, remove."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import asyncpg

from servers.amqp import Guest

Facts = Mapping[str, Any]


class Hands(Protocol):
    """Of one room; `facts` of a case's `room`, `owner` of its `superuser`."""

    @property
    def enters(self) -> bool:
        """Whether a session is something to be kept open."""

    def __init__(self, facts: Facts, owner: Facts) -> None: ...

    async def enter(self, user: str, password: str) -> tuple[Any, int]:
        """Open a session: something to be kept, and its socket's descriptor. Raises whatever a driver does."""

    async def plant(self, name: str) -> None:
        """Make a principal that may log in; one that is there stays."""

    async def remove(self, name: str) -> None:
        """And it is gone."""


class PostgresHands:
    """Over the driver agents use."""

    enters = True

    def __init__(self, facts: Facts, owner: Facts) -> None:
        self._facts, self._owner = facts, owner

    async def enter(self, user: str, password: str) -> tuple[Any, int]:
        facts = self._facts
        session = await asyncpg.connect(
            host=facts["host"], port=facts["port"], database=facts["database"], user=user, password=password
        )
        transport: Any = session._transport  # type: ignore[attr-defined]
        return session, int(transport.get_extra_info("socket").fileno())

    async def plant(self, name: str) -> None:
        try:
            await self._run(f'CREATE ROLE "{name}" LOGIN IN ROLE {self._facts["groups"][0]}')
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            return

    async def remove(self, name: str) -> None:
        await self._run(f'DROP ROLE IF EXISTS "{name}"')

    async def _run(self, statement: str) -> None:
        connection = await asyncpg.connect(**self._owner)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class MysqlHands:
    """Over a connection of their own, whose socket can be kept, and the foreign client."""

    enters = True

    def __init__(self, facts: Facts, owner: Facts) -> None:
        self._facts, self._owner = facts, owner

    async def enter(self, user: str, password: str) -> tuple[Any, int]:
        reader, writer = await asyncio.open_connection(self._facts["host"], self._facts["port"])

        async def packet() -> bytes:
            return await reader.readexactly(int.from_bytes((await reader.readexactly(4))[:3], "little"))

        greeting = await packet()
        rest = greeting[greeting.index(b"\0", 1) + 5 :]
        answer = _native(password, rest[:8] + rest[27:39])
        names = b"\0".join((user.encode(), bytes([len(answer)]) + answer + b"mysql_native_password"))
        hello = (0x88200).to_bytes(4, "little") + (2**24 - 1).to_bytes(4, "little") + b"\x2d" + bytes(23) + names
        writer.write(len(hello + b"\0").to_bytes(3, "little") + b"\x01" + hello + b"\0")
        if (said := await packet())[:1] == b"\xfe":
            answer = _native(password, said.split(b"\0", 1)[1][:20])
            writer.write(len(answer).to_bytes(3, "little") + b"\x03" + answer)
            said = await packet()
        if said[:1] != b"\0":
            writer.close()
            raise PermissionError("it was refused")
        return writer, int(writer.get_extra_info("socket").fileno())

    async def plant(self, name: str) -> None:
        self._run(f"CREATE USER IF NOT EXISTS '{name}' IDENTIFIED VIA mysql_native_password USING '';")

    async def remove(self, name: str) -> None:
        self._run(f"DROP USER IF EXISTS '{name}';")

    def _run(self, statement: str) -> None:
        at = self._facts
        command = ["mariadb", "--no-defaults", "-h", at["host"], "-P", str(at["port"]), "-u", "root"]
        known = {**os.environ, "MYSQL_PWD": self._owner["password"]}
        subprocess.run(command, input=statement, env=known, capture_output=True, text=True, check=True)


def _native(password: str, salt: bytes) -> bytes:
    """What `mysql_native_password` wants to see."""

    def digest(data: bytes) -> bytes:
        return hashlib.sha1(data, usedforsecurity=False).digest()

    once = digest(password.encode())
    return bytes(left ^ right for left, right in zip(once, digest(salt + digest(once)), strict=True))


class RedisHands:
    """Over a plain connection, and the foreign client."""

    enters = True

    def __init__(self, facts: Facts, owner: Facts) -> None:
        self._facts, self._owner = facts, owner

    async def enter(self, user: str, password: str) -> tuple[Any, int]:
        reader, writer = await asyncio.open_connection(self._facts["host"], self._facts["port"])
        writer.write(f"AUTH {user} {password}\r\n".encode())
        if await reader.readline() != b"+OK\r\n":
            writer.close()
            raise PermissionError("it was refused")
        return writer, int(writer.get_extra_info("socket").fileno())

    async def plant(self, name: str) -> None:
        self._run("ACL", "SETUSER", name, "on", ">planted", "+ping")

    async def remove(self, name: str) -> None:
        self._run("ACL", "DELUSER", name)

    def _run(self, *words: str) -> None:
        at = self._facts
        command = ["redis-cli", "-h", at["host"], "-p", str(at["port"]), "--user", "root", *words]
        known = {**os.environ, "REDISCLI_AUTH": self._owner["password"]}
        subprocess.run(command, env=known, capture_output=True, text=True, check=True)


class RabbitmqHands:
    """Over AMQP, and the management API."""

    enters = True

    def __init__(self, facts: Facts, owner: Facts) -> None:
        self._facts, self._owner = facts, owner

    async def enter(self, user: str, password: str) -> tuple[Any, int]:
        def enter() -> Guest:
            guest = Guest(self._facts["host"], self._facts["port"])
            if not (guest.authenticate(user, password) and guest.enter(self._facts["vhost"])):
                raise PermissionError("it was refused")
            return guest

        guest = await asyncio.to_thread(enter)
        return guest, guest.socket.fileno()

    async def plant(self, name: str) -> None:
        await self._run("PUT", name, '{"password": "planted", "tags": ""}')

    async def remove(self, name: str) -> None:
        await self._run("DELETE", name, "")

    async def _run(self, method: str, name: str, body: str) -> None:
        login = base64.b64encode(f"owner:{self._owner['password']}".encode()).decode()
        url, headers = f"{self._facts['management']}/api/users/{name}", {"Authorization": f"Basic {login}"}
        request = urllib.request.Request(url, body.encode(), {**headers, "Content-Type": "application/json"})
        request.method = method
        with suppress(urllib.error.HTTPError):  # gone already
            (await asyncio.to_thread(urllib.request.urlopen, request, timeout=30)).close()


class BearerHands:
    """Nobody can make what is handed over but who gives it, and what agents open survives by the engine's own word."""

    enters = False

    def __init__(self, facts: Facts, owner: Facts) -> None:
        self._facts, self._owner = facts, owner

    async def enter(self, user: str, password: str) -> tuple[Any, int]:
        raise PermissionError("no session is kept here")

    async def plant(self, name: str) -> None:
        """Nothing."""

    async def remove(self, name: str) -> None:
        """Nothing."""


class KubernetesHands(BearerHands):
    """Secrets of a namespace, made by somebody else; a token is shown, and no session is kept."""

    async def plant(self, name: str) -> None:
        labels = {"app.kubernetes.io/managed-by": "sojourn", "sojourn-installation": name.split("_")[1]}
        meta = {"name": name.replace("_", "-"), "labels": labels}
        await asyncio.to_thread(self._run, "POST", "", {"apiVersion": "v1", "kind": "Secret", "metadata": meta})

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(self._run, "DELETE", "/" + name.replace("_", "-"), {})

    def _run(self, method: str, below: str, body: dict[str, Any]) -> None:
        url = f"{self._facts['server']}/api/v1/namespaces/{self._facts['namespace']}/secrets{below}"
        headers = {"Authorization": f"Bearer {self._owner['token']}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        context = ssl.create_default_context(cafile=self._facts["ca_file"])
        try:
            urllib.request.urlopen(request, timeout=30, context=context).close()
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in {404, 409}:  # gone already, or there already
                    raise


HANDS: Mapping[str, type[Hands]] = {
    "postgres": PostgresHands, "mysql": MysqlHands, "redis": RedisHands, "rabbitmq": RabbitmqHands,
    "ssh": BearerHands, "oauth": BearerHands, "aws": BearerHands, "kubernetes": KubernetesHands,
}  # fmt: skip
"""By the engine's kind."""
