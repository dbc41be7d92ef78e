"""A real OpenSSH server for tests: a free port, own folder and host key, certificates only, gone with its test.

    with sshd(authority_line) as server:            # root logs in as root, anybody else as themselves
        with server.login(...) as session: ...      # the client `ssh`

`server.is_revoked(certificate)` asks `ssh-keygen -Q`, `described(certificate)` asks `ssh-keygen -L`; nothing of ours is
needed to use this file. The server is the leader of its own process group; it dies with us by PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servers import standing

_DAEMON = "/usr/sbin/sshd"
_SETTINGS = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile none
TrustedUserCAKeys {folder}/authorities
{revoked}
AuthorizedKeysFile none
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PrintMotd no
MaxStartups 100
AllowTcpForwarding yes
LogLevel VERBOSE
"""
_OPTIONS = ("BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=none")


@dataclass
class Session:
    """A client that is connected, or was refused."""

    process: subprocess.Popen[bytes]
    folder: Path

    def says(self, line: str) -> str:
        """What comes back for a line; empty when the session is over."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return ""
        return self.process.stdout.readline().decode().rstrip("\n")

    def rest(self) -> tuple[int, str, str]:
        """Wait for its end: status, what it printed, what it complained of."""
        out, errors = self.process.communicate(timeout=standing.PATIENCE)
        return self.process.returncode, out.decode(), errors.decode()

    def close(self) -> None:
        """End it, and leave no key."""
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(kw_only=True)
class Server:
    """One running sshd."""

    folder: Path
    port: int
    host: str = "127.0.0.1"
    user: str = field(default_factory=getpass.getuser)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def revocations(self) -> Path:
        """The file its `RevokedKeys` names."""
        return self.folder / "revoked"

    @property
    def host_key(self) -> str:
        """Its public key without the comment."""
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    @property
    def log(self) -> str:
        """Everything it has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def login(
        self, private_key: str, certificate: str, *command: str, user: str | None = None, options: Sequence[str] = ()
    ) -> Session:
        """The client `ssh`, told to run `command` over there."""
        folder = Path(tempfile.mkdtemp(prefix="sj-ssh-", dir="/tmp"))
        known = f"[{self.host}]:{self.port} {self.host_key}\n"
        for name, content in (("key", private_key), ("cert", certificate + "\n"), ("known", known)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(content)
        line = ["ssh", "-F", "none", "-p", str(self.port), "-i", str(folder / "key")]
        more = (f"CertificateFile={folder / 'cert'}", f"UserKnownHostsFile={folder / 'known'}")
        for option in (*_OPTIONS, *more, *options):
            line += ["-o", option]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*line, f"{user or self.user}@{self.host}", *command], stdin=pipe, stdout=pipe, stderr=pipe
        )
        return Session(process, folder)

    def is_revoked(self, certificate: str) -> bool:
        """Whether `ssh-keygen` finds it in the list."""
        with _file(certificate) as path:
            command = ["ssh-keygen", "-Q", "-f", str(self.revocations), str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "revoked" not in done.stdout.lower() and ": ok" not in done.stdout:
            raise RuntimeError(f"ssh-keygen could not tell: {done.stdout}{done.stderr}")
        return done.returncode != 0

    def start(self) -> None:
        """Start it, and wait until it greets."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [_DAEMON, "-D", "-E", str(self.folder / "log"), "-f", str(self.folder / "sshd_config")]
        self.process = standing.launched(command, self.folder / "out", stdin=subprocess.DEVNULL)
        standing.wait(self.process, self.folder / "log", self._greets)

    def _greets(self) -> bool:
        with socket.create_connection((self.host, self.port), 5) as probe:
            return probe.recv(8) == b"SSH-2.0-"

    def stop(self) -> None:
        """Kill it with every session it serves."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(standing.PATIENCE)


@contextlib.contextmanager
def sshd(authorities: str, folder: Path | None = None, *, reads_list: bool = True) -> Iterator[Server]:
    """A server that believes the CAs of these lines; with `reads_list` it refuses everybody until there is a list."""
    folder = folder or Path(tempfile.mkdtemp(prefix="sj-sshd-", dir="/tmp"))
    folder.chmod(0o755)
    server = Server(folder=folder, port=standing.free_port())
    (folder / "authorities").write_text(authorities + "\n")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host")]
    subprocess.run(command, check=True)
    revoked = f"RevokedKeys {server.revocations}" if reads_list else ""
    settings = _SETTINGS.format(port=server.port, folder=folder, revoked=revoked)
    (folder / "sshd_config").write_text(settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def described(certificate: str) -> str:
    """What `ssh-keygen -L` reads in it; its own words when it can't."""
    with _file(certificate) as path:
        done = subprocess.run(["ssh-keygen", "-L", "-f", str(path)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@contextlib.contextmanager
def _file(certificate: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sj-ssh-", dir="/tmp") as folder:
        path = Path(folder, "cert.pub")
        path.write_text(certificate + "\n")
        yield path
