"""A real RabbitMQ for tests: free ports, own folder, own `epmd`, gone with the run.

    with rabbitmq() as server:                  # the server of this run: it takes eight seconds to start
        with server.room() as room:             # a virtual host and an admin of one test's own

`room.principals()` and `room.connections()` ask `rabbitmqctl`; nothing of ours is needed to use this file. The wrapper
leaves the virtual machine behind when it is killed, and that one would leave `epmd`: both are leaders of groups of
their own, which are killed at exit, and by a watchman with a pipe to us when we die without one.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from servers import standing

_BINARIES = Path("/usr/lib/rabbitmq/bin")
_SETTINGS = """
listeners.tcp.1 = 127.0.0.1:{port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
loopback_users = none
default_user = owner
default_pass = {password}
default_user_tags.administrator = true
log.file.level = debug
"""


@dataclass(frozen=True, kw_only=True)
class Room:
    """A place in a server for one test: nothing in it is shared with another."""

    server: Server
    vhost: str
    admin: str
    admin_password: str = field(repr=False)
    before: frozenset[str]
    """Principals that earlier tests left: users belong to the server, not to a room."""

    def principals(self) -> set[str]:
        """Users with a prefix of ours, made since this room was furnished; claims are none."""
        return set(self.server.principals()) - self.before

    def connections(self) -> list[str]:
        """The users of all open connections, one entry a connection, with the names of those that are gone."""
        return self.server.control("list_connections", "user")


@dataclass(kw_only=True)
class Server:
    """One running RabbitMQ."""

    folder: Path
    port: int
    management: int
    distribution: int
    epmd: int
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    names: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    watchman: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """Everything the server has logged so far."""
        return "\n".join(path.read_text(errors="replace") for path in sorted((self.folder / "log").glob("*.log")))

    @property
    def url(self) -> str:
        """The management API."""
        return f"http://{self.host}:{self.management}"

    def ask(self, method: str, *path: str, body: Any = None) -> Any:
        """One request as the owner; the answer's JSON, None for an empty one or a 404."""
        url = "/".join((self.url, "api", *(quote(part, safe="") for part in path)))
        request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), method=method)
        login = base64.b64encode(f"owner:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 404:
                    raise
            return None
        return json.loads(content) if content else None

    def control(self, *arguments: str) -> list[str]:
        """The lines `rabbitmqctl` prints: the server's own word, by another way than the management API."""
        command = [str(_BINARIES / "rabbitmqctl"), "-q", *arguments, "--no-table-headers"]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=True)
        return done.stdout.split("\n")[:-1]

    def principals(self) -> list[str]:
        """Every user with a prefix of ours, claims left out."""
        users = [line.split("\t")[0] for line in self.control("list_users")]
        return [user for user in users if user.startswith("sj_") and not user.startswith("sj_claim_")]

    @contextlib.contextmanager
    def room(self) -> Iterator[Room]:
        """A virtual host, and an admin as an operator would make one."""
        mark, password = secrets.token_hex(4), secrets.token_hex(16)
        vhost, admin = f"room/{mark}", f"admin_{mark}"
        users = [str(row["name"]) for row in self.ask("GET", "users")]
        for claim in [user for user in users if user.startswith("sj_claim_")]:
            self.ask("DELETE", "users", claim)  # users are the server's: the last test's claim
        self.ask("PUT", "vhosts", vhost, body={})
        self.ask("PUT", "users", admin, body={"password": password, "tags": "administrator"})
        ours = frozenset(user for user in users if user.startswith("sj_"))
        try:
            yield Room(server=self, vhost=vhost, admin=admin, admin_password=password, before=ours)
        finally:
            self.ask("DELETE", "vhosts", vhost)
            self.ask("DELETE", "users", admin)

    def start(self) -> None:
        """Start it, and wait until both of its ports answer."""
        environment = self._environment()
        (epmd,) = Path("/usr/lib/erlang").glob("erts-*/bin/epmd")
        command = [str(epmd), "-port", str(self.epmd), "-address", self.host]
        self.names = self._launch(command, environment)
        self.process = self._launch([str(_BINARIES / "rabbitmq-server")], environment)
        watch = f"read _; kill -9 -{self.process.pid}; kill -9 -{self.names.pid}"
        self.watchman = subprocess.Popen(["/bin/sh", "-c", watch], stdin=subprocess.PIPE, start_new_session=True)
        standing.wait(self.process, self.folder / "out", self._answers)

    def _answers(self) -> bool:
        with socket.create_connection((self.host, self.port), 5):
            self.ask("GET", "whoami")
        return True

    def stop(self) -> None:
        """Kill it with its `epmd`: a power cut."""
        for process in (self.watchman, self.process, self.names):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=standing.PATIENCE)
        self.watchman = self.process = self.names = None

    def _launch(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return standing.launched(command, self.folder / "out", env=environment, cwd=self.folder)

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"r{self.epmd}@localhost",
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
            "ERL_EPMD_PORT": str(self.epmd),
            "ERL_EPMD_ADDRESS": self.host,
        }


_RUNNING: list[Server] = []


@contextlib.contextmanager
def rabbitmq(*, fresh: bool = False) -> Iterator[Server]:
    """The server of this run; `fresh` gives one of the test's own, to be stopped or killed."""
    if fresh:
        server = _open()
        try:
            yield server
        finally:
            _end(server)
        return
    if not _RUNNING:
        _RUNNING.append(_open())
        atexit.register(_end, _RUNNING[0])
    yield _RUNNING[0]


def _open() -> Server:
    folder = standing.Place.folder("sj-mq-")
    port, management, distribution, epmd = standing.free_ports(4)
    server = Server(
        folder=folder,
        port=port,
        management=management,
        distribution=distribution,
        epmd=epmd,
        password=secrets.token_hex(16),
    )
    facts = {"port": port, "management": management, "password": server.password}
    (folder / "rabbitmq.conf").write_text(_SETTINGS.format(**facts))
    (folder / "enabled_plugins").write_text("[rabbitmq_management].")
    server.start()
    return server


def _end(server: Server) -> None:
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)
