"""A PostgreSQL that speaks TLS and lets certificates of one CA in: a room of it as the contract of engines sees it."""

from __future__ import annotations

import atexit
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from broker.engines.postgres import open_engine
from broker.engines.protocol import Issued, Lent
from ca.keys import open_key_store
from ca.keys.protocol import Place
from ca.runtime.clock import SystemClock
from ca.seal import AesSeal
from fakes.web_pki import WebAuthority
from fakes.world import role
from servers.place import new_prefix
from servers.postgres import Room, Server, installations, owned_by_the_server, postgres
from servers.postgres_place import PostgresPlace, PostgresVisit, settings_for


def with_tls() -> Mapping[str, Path]:
    """Every PostgreSQL here that can speak TLS: the embedded one was built without."""
    return {name: path for name, path in installations().items() if not name.startswith("embedded")}


@dataclass(frozen=True)
class Pki:
    """Files of one run: the server's own certificate, and the clients' CAs it believes."""

    folder: Path
    authority: WebAuthority

    @property
    def trusted(self) -> Path:
        """What whoever connects believes."""
        return self.folder / "authority.pem"

    @property
    def clients(self) -> Path:
        """The server's `ssl_ca_file`."""
        return self.folder / "clients.pem"

    def options(self) -> tuple[str, ...]:
        """For the server's command line."""
        server = self.folder / "server.pem"
        return ("ssl=on", f"ssl_cert_file={server}", f"ssl_key_file={server}", f"ssl_ca_file={self.clients}")


@cache
def pki() -> Pki:
    """One for the run."""
    folder = Path(tempfile.mkdtemp(prefix="sj-pg-tls-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Pki(folder, WebAuthority("databases"))
    made.trusted.write_bytes(made.authority.pem)
    made.clients.write_bytes(made.authority.pem)
    (folder / "server.pem").write_bytes(made.authority.server_pem("127.0.0.1"))
    (folder / "server.pem").chmod(0o600)
    for path in (folder, *folder.iterdir()):
        owned_by_the_server(path)
    return made


@dataclass
class CertifiedPlace(PostgresPlace):
    """Agents show a certificate."""

    async def login(self, issued: Issued, **options: Any) -> PostgresVisit | None:
        try:
            name = str(issued.fields["username"])
            visit = PostgresVisit(await self.room.connect(name, "", ssl=showing(issued), **options))
        except (asyncpg.PostgresError, OSError):
            return None
        self.visits.append(visit)
        return visit


def showing(issued: Issued) -> ssl.SSLContext:
    """TLS as an agent speaks it who was given a certificate."""
    context = ssl.create_default_context(cafile=str(pki().trusted))
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{issued.fields['certificate']}{issued.secret['private_key'].reveal()}")
        file.flush()
        context.load_cert_chain(file.name)
    return context


@asynccontextmanager
async def certified_place(
    binaries: Path | None = None, *, superuser: bool = False, shut: bool = True, **settings: Any
) -> AsyncIterator[CertifiedPlace]:
    """A room whose server asks members of `sojourn_cert` for a certificate; `shut` is whether for nothing else."""
    clock, kind = SystemClock(), "certificate"
    keys = open_key_store("disk", Place(folder=Path(tempfile.mkdtemp(dir=pki().folder)), seal=AesSeal(bytes(32))))
    async with (
        postgres(binaries, options=pki().options()) as server,
        server.room(superuser=superuser) as room,
        open_engine(
            settings_for(room, secret_kind=kind, tls="verify", tls_ca=pki().trusted, **settings),
            Lent(clock=clock, keys=keys, target="orders-db"),
        ) as engine,
    ):
        await believe(server, room, await engine.authority(), clock, shut=shut)
        the_role = role(engine="postgres", settings={"groups": [room.groups[0]]})
        place = CertifiedPlace(engine, the_role, clock, new_prefix(), room, server, superuser)
        try:
            yield place
        finally:
            for visit in place.visits:
                visit.connection.terminate()
            await clock.sleep(0)


async def believe(server: Server, room: Room, authority: str, clock: SystemClock, *, shut: bool = True) -> None:
    """What docs/engines/postgres.md has a database's owner do."""
    owner = await server.connect()
    try:
        if not await owner.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = 'sojourn_cert'"):
            await owner.execute("CREATE ROLE sojourn_cert NOLOGIN")
        await owner.execute(f"GRANT sojourn_cert TO {room.admin} WITH ADMIN OPTION")
        with pki().clients.open("a") as file:
            file.write(authority)
        await ask(server, owner, clock, entries(room, shut=shut))
    finally:
        await owner.close()


def entries(room: Room, *, shut: bool = True) -> str:
    """Lines of `pg_hba.conf`: our own user first, because whoever may give the marker is a member of it."""
    end = "host all +sojourn_cert all reject\n" if shut else ""
    return f"host all {room.admin} all scram-sha-256\nhostssl all +sojourn_cert all cert\n{end}"


async def ask(server: Server, owner: asyncpg.Connection, clock: SystemClock, lines: str) -> None:
    """Put `lines` above what `initdb` wrote, and wait until the server goes by them."""
    path, kept = server.folder / "data" / "pg_hba.conf", server.folder / "pg_hba.kept"
    if not kept.exists():
        kept.write_text(path.read_text())
    path.write_text(lines + kept.read_text())
    loaded = await _loaded(server)
    await owner.execute("SELECT pg_reload_conf()")
    while await _loaded(server) == loaded:
        await clock.sleep(0.01)


async def _loaded(server: Server) -> Any:
    fresh = await server.connect()
    try:
        return await fresh.fetchval("SELECT pg_conf_load_time()")
    finally:
        await fresh.close()
