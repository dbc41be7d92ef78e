"""Real MariaDB servers for tests: free ports, own folder, passwords only, gone with the run.

    async with mariadb() as server:             # the server of this run, started once per set of options
        async with server.room() as room:       # a schema, a role and an admin of one test's own

`room.principals()` and `room.sessions()` look through the foreign client `mariadb` as root; nothing of ours is needed
to use this file. A server is the leader of its own process group; it dies with us by PR_SET_PDEATHSIG, at exit by
signal to the group.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import standing

_DAEMON = shutil.which("mariadbd") or "/usr/sbin/mariadbd"

_RIGHTS = """
CREATE USER {admin} IDENTIFIED BY '{password}';
GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO {admin};
GRANT SELECT ON mysql.* TO {admin};
GRANT SELECT, INSERT ON `{pattern}`.* TO {admin} WITH GRANT OPTION;
CREATE ROLE {reader};
GRANT SELECT ON `{pattern}`.* TO {reader};
GRANT {reader} TO {admin} WITH ADMIN OPTION;
"""
_FURNITURE = """
CREATE DATABASE `{schema}`;
CREATE TABLE `{schema}`.orders (id BIGINT PRIMARY KEY, item VARCHAR(40) NOT NULL);
INSERT INTO `{schema}`.orders VALUES (1, 'lamp'), (2, 'chair'), (3, 'desk');
"""


@dataclass(frozen=True, kw_only=True)
class Room:
    """A place in a server for one test: nothing in it is shared with another."""

    server: Server
    schema: str
    admin: str
    admin_password: str = field(repr=False)
    reader: str
    """A role that may read the schema, which the admin may grant."""
    before: Sequence[str] = ()
    """Principals that earlier tests left: users belong to the server, not to a room."""

    @property
    def host(self) -> str:
        """Where it listens."""
        return self.server.host

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    def principals(self) -> set[str]:
        """Users with a prefix of ours, made since this room was furnished."""
        return set(self.server.principals()) - set(self.before)

    def sessions(self) -> list[str]:
        """The users of all open sessions that have a prefix of ours, one entry a session."""
        return [user for user in self.server.ask("SELECT user FROM information_schema.processlist") if _ours(user)]

    def admits(self, name: str, password: str) -> bool:
        """Whether a login opens, tried by the foreign client."""
        return self.server.client(name, password, "SELECT 1").returncode == 0


@dataclass(kw_only=True)
class Server:
    """One running MariaDB."""

    folder: Path
    port: int
    options: Sequence[str]
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """Everything the server has logged so far, every statement included."""
        return "\n".join((self.folder / name).read_text(errors="replace") for name in ("log", "data/statements"))

    def client(self, user: str, password: str, statements: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run the client `mariadb` over TCP."""
        command = ["mariadb", "--no-defaults", "-N", "-B", "-h", self.host, "-P", str(self.port), "-u", user, *more]
        said = {**os.environ, "MYSQL_PWD": password}
        return subprocess.run(command, input=statements, env=said, capture_output=True, text=True, check=False)

    def ask(self, statements: str) -> list[str]:
        """Run statements as root; the lines of the answer."""
        done = self.client("root", self.password, statements)
        if done.returncode:
            raise RuntimeError(f"root was refused: {done.stderr}")
        return done.stdout.splitlines()

    def principals(self) -> list[str]:
        """Every user with a prefix of ours."""
        return [user for user in self.ask("SELECT DISTINCT user FROM mysql.global_priv") if _ours(user)]

    @contextlib.asynccontextmanager
    async def room(self, *, roles: bool = False) -> AsyncIterator[Room]:
        """A schema with a table, a role that may read it, and an admin with the rights doctor asks for.

        With `roles` the admin may also set the default role of others, for which MariaDB wants UPDATE in `mysql`.
        """
        mark, password = secrets.token_hex(4), secrets.token_hex(16)
        names = {"schema": f"room_{mark}", "admin": f"admin_{mark}", "reader": f"reader_{mark}"}
        pattern = names["schema"].replace("_", r"\_")
        self.ask("DROP USER IF EXISTS sojourn_claim;")  # users are the server's: the last test's claim
        self.ask(_FURNITURE.format(**names) + _RIGHTS.format(**names, password=password, pattern=pattern))
        if roles:
            self.ask(f"GRANT UPDATE ON mysql.* TO {names['admin']}")
        yield Room(server=self, admin_password=password, before=self.principals(), **_only(names))
        self.ask("DROP DATABASE `{schema}`; DROP USER {admin}; DROP ROLE {reader};".format(**names))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [_DAEMON, "--no-defaults", f"--datadir={self.folder / 'data'}", f"--port={self.port}"]
        command += [f"--bind-address={self.host}", f"--socket={self.folder / 's'}", f"--pid-file={self.folder / 'p'}"]
        command += ["--general-log=1", f"--general-log-file={self.folder / 'data' / 'statements'}"]
        command += ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--skip-name-resolve"]
        command += ["--plugin-load-add=auth_ed25519"]
        self.process = standing.launched([*command, *self.options], self.folder / "log", owner=_owner())
        standing.wait(self.process, self.folder / "log", self._greets)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it: SIGTERM closes in order, SIGKILL is a power cut."""
        process, self.process = self.process, None
        standing.stop(process, how)

    def _greets(self) -> bool:
        with socket.create_connection((self.host, self.port), 5) as probe:
            return bool(probe.recv(1))


def _ours(user: str) -> bool:
    return user.startswith("sj_")


def _only(names: Mapping[str, str]) -> Mapping[str, Any]:
    return {name: names[name] for name in ("schema", "admin", "reader")}


_RUNNING: dict[tuple[str, ...], Server] = {}


@contextlib.asynccontextmanager
async def mariadb(*, options: Sequence[str] = (), fresh: bool = False) -> AsyncIterator[Server]:
    """The server of this run with these `options`; `fresh` gives one of the test's own, to be stopped or killed."""
    if fresh:
        server = _open(options)
        try:
            yield server
        finally:
            _end(server)
        return
    if tuple(options) not in _RUNNING:
        _RUNNING[tuple(options)] = _open(options)
        atexit.register(_end, _RUNNING[tuple(options)])
    yield _RUNNING[tuple(options)]


def _open(options: Sequence[str]) -> Server:
    folder = standing.Place.folder("sj-my-")
    folder.chmod(0o755)
    server = Server(folder=folder, port=standing.free_port(), options=options, password=secrets.token_hex(16))
    data, owner = folder / "data", _owner()
    data.mkdir()
    standing.give(owner, folder, data)
    command = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"]
    command += ["--auth-root-authentication-method=normal"]
    if owner is not None:
        command.append(f"--user={owner.pw_name}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    server.start()
    here = socket.gethostname()
    setup = f"DROP USER IF EXISTS ''@'localhost', ''@'{here}', root@'{here}', root@'127.0.0.1', root@'::1';"
    setup += f"CREATE USER root@'%' IDENTIFIED BY '{server.password}'; GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
    setup += f"SET PASSWORD FOR root@localhost = PASSWORD('{server.password}');"
    command = ["mariadb", "--no-defaults", "-u", "root", "-S", str(folder / "s"), "-e", setup]
    subprocess.run(command, check=True, capture_output=True)
    return server


def _end(server: Server) -> None:
    server.stop(signal.SIGKILL)
    shutil.rmtree(server.folder, ignore_errors=True)


def _owner() -> pwd.struct_passwd | None:
    return standing.account("mysql")
