"""Real Redis servers for tests: free ports, own folder, no user without a password, gone with the run.

    async with redis() as server:               # the server of this run, started once per kind
        async with server.room() as room:       # keys, and an admin of one test's own

`room.principals()`, `room.sessions()` and `room.admits()` look through the foreign client `redis-cli` as root; nothing
of ours is needed to use this file. A server is the leader of its own process group; it dies with us by
PR_SET_PDEATHSIG, at exit by signal to the group.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servers import standing

_RIGHTS = ("+acl", "+client", "+time", "+ping", "+info", "+multi", "+exec")
_USER = re.compile(r" user=(\S+) ")


@dataclass(frozen=True, kw_only=True)
class Room:
    """A place in a server for one test: keys with a prefix of its own, and an admin."""

    server: Server
    key: str
    """It holds `lamp`."""
    admin: str
    admin_password: str = field(repr=False)
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
        found = [_USER.search(line) for line in self.server.ask("CLIENT", "LIST")]
        return [match[1] for match in found if match is not None and _ours(match[1])]

    def admits(self, name: str, password: str) -> bool:
        """Whether a login opens, tried by the foreign client."""
        return self.server.client(name, password, "GET", self.key).stdout == "lamp\n"


@dataclass(kw_only=True)
class Server:
    """One running Redis."""

    folder: Path
    port: int
    aclfile: bool
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """Everything the server has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def client(self, user: str, password: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `redis-cli`; what it was answered is in `stdout`, refusals too."""
        said = ["redis-cli", "-h", self.host, "-p", str(self.port), "--user", user, *command]
        known = {**os.environ, "REDISCLI_AUTH": password}
        return subprocess.run(said, env=known, capture_output=True, text=True, check=False)

    def ask(self, *command: str) -> list[str]:
        """Run one command as root; the lines of the answer."""
        done = self.client("root", self.password, *command)
        if done.returncode or re.match("(ERR|NOPERM|NOAUTH|WRONGPASS|AUTH) ", done.stdout):
            raise RuntimeError(f"root was refused: {done.stdout} {done.stderr}")
        return done.stdout.splitlines()

    def principals(self) -> list[str]:
        """Every user with a prefix of ours."""
        return [user for user in self.ask("ACL", "USERS") if _ours(user)]

    @contextlib.asynccontextmanager
    async def room(self) -> AsyncIterator[Room]:
        """A key, and an admin with the rights doctor asks for."""
        mark, password = secrets.token_hex(4), secrets.token_hex(16)
        room = Room(
            server=self,
            key=f"room_{mark}:item",
            admin=f"admin_{mark}",
            admin_password=password,
            before=self.principals(),
        )
        claims = [user for user in self.ask("ACL", "USERS") if user.startswith("sojourn_claim_")]
        if claims:
            self.ask("ACL", "DELUSER", *claims)  # users are the server's: the last test's claim
        self.ask("SET", room.key, "lamp")
        self.ask("ACL", "SETUSER", room.admin, "reset", "on", f">{password}", *_RIGHTS)
        yield room
        if self.process is not None:
            self.ask("ACL", "DELUSER", room.admin)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = ["redis-server", str(self.folder / "conf")]
        self.process = standing.launched(command, self.folder / "log", owner=_owner(), cwd=self.folder)
        standing.wait(self.process, self.folder / "log", self._answers)

    def _answers(self) -> bool:
        return self.client("root", self.password, "PING").stdout == "PONG\n"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it: SIGTERM closes in order, SIGKILL is a power cut."""
        process, self.process = self.process, None
        standing.stop(process, how)


def _ours(user: str) -> bool:
    return user.startswith("sj_")


_RUNNING: dict[bool, Server] = {}


@contextlib.asynccontextmanager
async def redis(*, aclfile: bool = False, fresh: bool = False, options: Sequence[str] = ()) -> AsyncIterator[Server]:
    """The server of this run, with users in a file or not; `fresh` gives one of the test's own, to be killed.

    `options` are further lines of its configuration, for a fresh one.
    """
    if fresh or options:
        server = _open(aclfile=aclfile, options=options)
        try:
            yield server
        finally:
            _end(server)
        return
    if aclfile not in _RUNNING:
        _RUNNING[aclfile] = _open(aclfile=aclfile)
        atexit.register(_end, _RUNNING[aclfile])
    yield _RUNNING[aclfile]


def _open(*, aclfile: bool, options: Sequence[str] = ()) -> Server:
    folder = standing.Place.folder("sj-re-")
    server = Server(folder=folder, port=standing.free_port(), aclfile=aclfile, password=secrets.token_hex(16))
    users = f"user default off\nuser root on >{server.password} ~* &* +@all\n"
    said = f"port {server.port}\nbind {server.host}\nsave ''\ndir {folder}\n" + "".join(f"{line}\n" for line in options)
    (folder / "users.acl").write_text(users)
    (folder / "conf").write_text(said + (f"aclfile {folder / 'users.acl'}\n" if aclfile else users))
    standing.give(_owner(), folder, *folder.iterdir())
    server.start()
    return server


def _end(server: Server) -> None:
    server.stop(signal.SIGKILL)
    shutil.rmtree(server.folder, ignore_errors=True)


def _owner() -> pwd.struct_passwd | None:
    return standing.account("redis")
