"""Where the broker is: said by a flag, by the environment, or by the `sojourn up` that runs on this machine.

    flag ▸ SOJOURN_BROKER ▸ the file of the running `up`

Several brokers over one store are one: `https://a:8443,https://b:8443`, asked in turn (`addresses.py`).

The file is written by `up` into a folder only its own user may enter (`Places.running`). It is believed when it belongs
to this user or to root and nobody else may write it: whoever could write it would choose where secrets are asked for.
It proves nothing by itself; who answers there is proven by mutual TLS, or by the mode of a socket.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attestor.client.errors import Unreachable
from attestor.client.workload_api import SOCKET_VARIABLE
from ca.errors import Denied, Malformed
from ca.runtime.places import Places, runtime_home, state_home

BROKER_VARIABLE = "SOJOURN_BROKER"
ADMIN_VARIABLE = "SOJOURN_BROKER_ADMIN"
STATE_VARIABLE = "SOJOURN_STATE"
START = "start it with: sojourn up"
"""What to do when nothing runs."""

_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a running `up` says of itself."""

    pid: int
    started_at: datetime
    trust_domain: str
    broker: str
    workload_api: str
    broker_admin: Path
    server_admin: Path
    node_agent_admin: Path
    state: Path

    @classmethod
    def from_json(cls, value: Any) -> Running:
        """The inverse of what `up` writes. Raises KeyError, TypeError, ValueError."""
        admin, started = value["admin"], datetime.fromisoformat(value["started_at"])
        if started.tzinfo is None:
            raise ValueError("a moment without its offset")
        return cls(
            pid=int(value["pid"]),
            started_at=started,
            trust_domain=str(value["trust_domain"]),
            broker=check_url(str(value["broker"])),
            workload_api=str(value["workload_api"]),
            broker_admin=Path(admin["broker"]),
            server_admin=Path(admin["server"]),
            node_agent_admin=Path(admin["node_agent"]),
            state=Path(value["state"]),
        )


def places_of(state: Path | None = None, environment: Mapping[str, str] = os.environ) -> Places:
    """The places `up` uses: those under `state`, or under SOJOURN_STATE, or this user's own."""
    named = state or (Path(environment[STATE_VARIABLE]) if environment.get(STATE_VARIABLE) else None)
    return Places.of(state_home(environment), runtime_home(environment)) if named is None else Places.of(named)


def running(places: Places) -> Running:
    """What runs here.

    Raises:
        Unreachable: nothing does.
        Denied: somebody else may have written what is there.
        Malformed: it is not what `up` writes.
    """
    found = _read(places.running)
    if found is None:
        raise Unreachable(f"no broker runs here, {START}")
    return found


def find_broker(flag: str | None, places: Places, environment: Mapping[str, str] = os.environ) -> str:
    """The broker's address for agents, or those of several over one store. Raises Unreachable, Denied, Malformed."""
    said = flag or environment.get(BROKER_VARIABLE)
    return ",".join(check_urls(said)) if said else running(places).broker


def find_workload_api(flag: str | None, places: Places, environment: Mapping[str, str] = os.environ) -> str:
    """The socket of the Workload API. Raises Unreachable, Denied, Malformed."""
    address = flag or environment.get(SOCKET_VARIABLE) or running(places).workload_api
    return f"unix://{address}" if address.startswith("/") else address


def find_admin(flag: Path | None, places: Places, environment: Mapping[str, str] = os.environ) -> Path:
    """The operators' socket of the broker: also of one that was started alone, at its usual place.

    Raises:
        Unreachable: there is none.
    """
    if flag is not None:
        return flag
    if environment.get(ADMIN_VARIABLE):
        return Path(environment[ADMIN_VARIABLE])
    found = _read(places.running)
    if found is not None:
        return found.broker_admin
    if _is_there(places.broker_admin):
        return places.broker_admin
    raise Unreachable(f"no broker runs here, {START}")


def check_urls(text: str) -> tuple[str, ...]:
    """One address or several, with commas between them. Raises Malformed."""
    return tuple(dict.fromkeys(check_url(one.strip()) for one in text.split(",")))


def check_url(text: str) -> str:
    """An address as agents use it: `https://host:port`, nothing behind it. Raises Malformed."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme == "https" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        whole = False
    if not whole or parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise Malformed("the broker's address is not understood: expected `https://HOST:PORT`")
    return f"https://{parts.netloc}"


def _read(path: Path) -> Running | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Denied(f"can't read `{path}`: {(error.strerror or 'unknown reason').lower()}") from error
    with os.fdopen(descriptor, "rb") as file:
        _check_owner(path, os.fstat(descriptor))
        content = file.read(_LARGEST)
    try:
        return Running.from_json(json.loads(content))
    except (ValueError, TypeError, KeyError, Malformed) as error:
        raise Malformed(f"`{path}` is not what `sojourn up` writes: remove it and start that anew") from error


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid()} or stat.S_IMODE(found.st_mode) & 0o022:
        raise Denied(f"`{path}` may have been written by somebody else, so it is not believed")


def _is_there(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
