"""Where state, sockets and settings live when nobody says, and what the files in them are called.

For root `/var/lib/sojourn`, `/run/sojourn` and `/etc/sojourn`; for everybody else the XDG folders. An XDG variable is
honoured only when it is absolute and leads to a folder of this very user (or root's): a root shell opened from
somebody's desktop still carries that somebody's variables.

    places = Places.of(state_home())
    places.create()
    places.broker_database          …/broker.db

Every folder is private (0700) and checked to be ours before anything is put into it: keys, stores and the operators'
sockets inherit their protection from it. Only the runtime folder may be passed through (0711), because workloads of
other users reach the Workload API's socket there; give it a place of its own when there are any.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ca.errors import Conflict, Denied, Malformed

NAME = "sojourn"

LONGEST_SOCKET = 107
"""Bytes in the path of a Unix socket; the kernel's structure has room for 108 with the zero at the end."""


def state_home(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder for what must survive."""
    return _home(environment, "XDG_STATE_HOME", Path("/var/lib") / NAME, Path.home() / ".local" / "state" / NAME)


def runtime_home(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder for sockets and what ends with the machine."""
    session = Path(f"/run/user/{os.geteuid()}")
    own = session / NAME if session.is_dir() else Path(f"/tmp/{NAME}-{os.geteuid()}")  # noqa: S108 - `make` refuses a foreign one
    return _home(environment, "XDG_RUNTIME_DIR", Path("/run") / NAME, own)


def config_home(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder for settings."""
    return _home(environment, "XDG_CONFIG_HOME", Path("/etc") / NAME, Path.home() / ".config" / NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The names of everything that lies in a state folder and a runtime folder."""

    state: Path
    runtime: Path

    @classmethod
    def of(cls, state: Path, runtime: Path | None = None) -> Places:
        """The places under `state`; sockets go to `runtime`, or to `run` inside `state`.

        Raises:
            Malformed: a socket's path would be longer than the kernel allows.
        """
        state = state.absolute()
        places = cls(state=state, runtime=(state / "run" if runtime is None else runtime.absolute()))
        for socket in places.sockets:
            if len(os.fsencode(socket)) > LONGEST_SOCKET:
                raise Malformed(
                    f"the socket `{socket}` has a name longer than {LONGEST_SOCKET} bytes: choose a shorter folder"
                )
        return places

    def create(self) -> None:
        """Make the folders. Raises Denied when one belongs to somebody else or others may enter it."""
        for folder in (self.state, self.keys, self.broker_keys, self.node_agent):
            make(folder)
        make(self.runtime, mode=0o711)
        make(self.admin)

    @property
    def server_database(self) -> Path:
        """The attestor server's store."""
        return self.state / "attestor-server.db"

    @property
    def broker_database(self) -> Path:
        """The broker's store."""
        return self.state / "broker.db"

    @property
    def keys(self) -> Path:
        """The folder of sealed private keys."""
        return self.state / "keys"

    @property
    def broker_keys(self) -> Path:
        """The same of the broker's own."""
        return self.state / "broker-keys"

    @property
    def node_agent(self) -> Path:
        """The folder of the node agent: its own key, and the journal of instances."""
        return self.state / "node-agent"

    @property
    def policies(self) -> Path:
        """The folder of Cedar policies."""
        return self.state / "policies"

    @property
    def rules(self) -> Path:
        """The file of identity rules."""
        return self.state / "rules.yaml"

    @property
    def admin(self) -> Path:
        """The folder of the operators' sockets."""
        return self.runtime / "admin"

    @property
    def running(self) -> Path:
        """The file in which a running `sojourn up` says where it listens."""
        return self.admin / "up.json"

    @property
    def workload_api(self) -> Path:
        """The socket of the SPIFFE Workload API."""
        return self.runtime / "workload.sock"

    @property
    def server_admin(self) -> Path:
        """The operators' socket of the attestor server."""
        return self.admin / "attestor-server.sock"

    @property
    def node_agent_admin(self) -> Path:
        """The operators' socket of the node agent."""
        return self.admin / "node-agent.sock"

    @property
    def broker_admin(self) -> Path:
        """The operators' socket of the broker."""
        return self.admin / "broker.sock"

    @property
    def sockets(self) -> tuple[Path, ...]:
        """All of them."""
        return self.workload_api, self.server_admin, self.node_agent_admin, self.broker_admin


def make(folder: Path, *, mode: int = 0o700) -> Path:
    """Make `folder`, or see that it is ours and lets nobody do more than `mode`.

    Raises:
        Denied: it belongs to another user, or lets others do more.
        Conflict: something else than a folder has its name, or it can't be made.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True)
            folder.chmod(mode)
        found = folder.lstat()
    except OSError as error:
        raise Conflict(f"can't make the folder `{folder}`: {(error.strerror or 'unknown reason').lower()}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Conflict(f"expected a folder at `{folder}`, found a link or a file")
    if found.st_uid != os.geteuid():
        raise Denied(f"the folder `{folder}` belongs to user {found.st_uid}, expected {os.geteuid()}")
    if found.st_mode & 0o777 & ~mode:
        held = found.st_mode & 0o777
        raise Denied(f"others may do too much in the folder `{folder}`: expected mode {mode:04o}, found {held:04o}")
    return folder


def _home(environment: Mapping[str, str], variable: str, system: Path, own: Path) -> Path:
    named = environment.get(variable, "")
    if named.startswith("/") and _is_ours(Path(named)):
        return Path(named) / NAME
    return system if os.geteuid() == 0 else own


def _is_ours(folder: Path) -> bool:
    """Whether the nearest folder that exists belongs to this user or to root."""
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            return candidate.stat().st_uid in {0, os.geteuid()}
    return False
