"""`sojourn up`: all three processes in one, durable, with nothing to install.

The same `serve` functions as the single processes, one inside the other: attestor server, node agent, broker. The node
agent recognises our own parts as its own process (`unix:self`), never by a path or a uid. State rests under the user's
state folder; the first tick of the next start is the recovery. A stop ends every task and waits until access is gone.

This is the one file that sees all three packages from above.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from attestor.node_agent.serve import serve as serve_node_agent
from attestor.node_agent.settings import NodeAgentSettings
from attestor.server.serve import Server
from attestor.server.serve import serve as serve_server
from attestor.server.settings import ServerSettings
from broker.model.task import EndReason
from broker.serve import RunningBroker
from broker.serve import serve as serve_broker
from broker.settings import BrokerSettings
from ca.runtime.clock import Clock
from ca.runtime.places import Places, make
from ca.runtime.process import Readiness
from ca.runtime.secret import Reference
from ca.spiffe.id import TrustDomain

_RULES = """\
# Who gets which identity. Read again on change; a file with a fault never replaces a good one.
# `sojourn rule explain --pid N` says what a process would get, and why not more.
rules:
"""
_RULE = """\
  - name: agents-of-uid-{uid}
    when: ["unix:uid:{uid}"]
    spiffe_id: /agents/{{unix.uid}}
    bind: process
"""
_KEYS_GONE = "the keys of the identity that proved it were in memory, and are gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody who types `sojourn up` may say."""

    trust_domain: TrustDomain
    host: str = "127.0.0.1"
    port: int = 0
    key: Reference | None = None
    """The key-encryption key; without it keys stay in memory, and no secret value rests."""
    lives: Mapping[str, str] | None = None
    """Lifetimes as in `config/attestor-server.yaml`, for tests and demos that can't wait an hour."""
    hold: Iterable[int] = ()
    """Uids that get an identity by the rules written at the first start, besides our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """Everything runs; where to find it."""

    places: Places
    server: Server
    broker: RunningBroker
    trust_domain: TrustDomain
    warnings: tuple[str, ...]

    @property
    def address(self) -> str:
        """The broker's address for agents."""
        host, port = self.broker.address
        return f"https://{host}:{port}"

    @property
    def workload_api(self) -> str:
        """What `SPIFFE_ENDPOINT_SOCKET` is set to."""
        return f"unix://{self.places.workload_api}"

    def told(self, started_at: str) -> dict[str, Any]:
        """What the file of the running `up` says."""
        places = self.places
        return {
            "pid": os.getpid(),
            "started_at": started_at,
            "trust_domain": self.trust_domain.name,
            "broker": self.address,
            "workload_api": self.workload_api,
            "admin": {
                "server": str(places.server_admin),
                "node_agent": str(places.node_agent_admin),
                "broker": str(places.broker_admin),
            },
            "state": str(places.state),
        }


@asynccontextmanager
async def up(places: Places, wish: Wish, clock: Clock, readiness: Readiness) -> AsyncIterator[Up]:
    """All of it, answering; leaving it ends every task first and returns when nothing is left outside.

    Raises:
        StoreLocked: another `up` holds this state folder.
        BadSettings, BadPolicy, Malformed: a file in it can't be meant.
    """
    places.create()
    prepare(places, wish)
    began = clock.now()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve_server(_server(places, wish), clock, readiness))
        joined = await _token(places, server)
        await stack.enter_async_context(serve_node_agent(_node_agent(places, wish, server, joined), clock, readiness))
        broker = await stack.enter_async_context(serve_broker(_broker(places, wish, server), clock, readiness))
        joined.unlink(missing_ok=True)
        if wish.key is None:
            await broker.end_tasks(EndReason.SHUTDOWN, _KEYS_GONE, opened_before=began)
        running = Up(
            places=places,
            server=server,
            broker=broker,
            trust_domain=wish.trust_domain,
            warnings=(*server.warnings, *_warnings()),
        )
        _write(places.running, json.dumps(running.told(clock.now().isoformat()), indent=2) + "\n")
        stack.callback(places.running.unlink, missing_ok=True)
        try:
            yield running
        finally:
            await broker.end_everything(EndReason.SHUTDOWN)


def prepare(places: Places, wish: Wish) -> None:
    """Put the files there that an operator edits later: rules, policies, a folder for targets. Never touches one.

    What an `up` that was killed left behind goes: its join token, and without a key to keep identities by, the identity
    its node agent had from a root that is no more.
    """
    if not places.rules.exists():
        uids = sorted({os.getuid(), *wish.hold})
        _write(places.rules, _RULES + "".join(_RULE.format(uid=uid) for uid in uids))
    make(places.policies)
    if not any(places.policies.glob("*.cedar")):
        _write(places.policies / "starter.cedar", files("broker.policy").joinpath("starter.cedar").read_text())
    make(places.state / "targets")
    for left in places.node_agent.glob("join-*"):
        left.unlink()
    if wish.key is None:
        (places.node_agent / "identity.json").unlink(missing_ok=True)


def _server(places: Places, wish: Wish) -> ServerSettings:
    said: dict[str, Any] = {
        "trust_domain": wish.trust_domain.name,
        "listen": {"port": 0},
        "admin_socket": str(places.server_admin),
        "database": f"sqlite:{places.server_database}",
        "keys": _keys(places.keys, wish),
        "rules": [str(places.rules)],
        "allow_rules_without_nodes": True,
        "parts": [{"name": "broker", "nodes": ["node:*"], "when": ["unix:self:true"]}],
        "lives": dict(wish.lives or {}),
    }
    return ServerSettings.model_validate_json(json.dumps(said))


def _keys(folder: Path, wish: Wish) -> dict[str, Any]:
    return {"store": "memory"} if wish.key is None else {"store": "disk", "folder": str(folder), "seal": str(wish.key)}


async def _token(places: Places, server: Server) -> Path:
    """A join token for our own node agent, in a private file for the moment it is needed."""
    path = places.node_agent / f"join-{secrets.token_hex(4)}"
    _write(path, f"{(await server.issue_token('up')).reveal()}\n")
    return path


def _node_agent(places: Places, wish: Wish, server: Server, token: Path) -> NodeAgentSettings:
    said: dict[str, Any] = {
        "trust_domain": wish.trust_domain.name,
        "server": {"host": server.address[0], "port": server.address[1]},
        "state": str(places.node_agent),
        "workload_socket": str(places.workload_api),
        "admin_socket": str(places.node_agent_admin),
        "join_token": f"file:{token}",
    }
    return NodeAgentSettings.model_validate_json(json.dumps(said))


def _broker(places: Places, wish: Wish, server: Server) -> BrokerSettings:
    said: dict[str, Any] = {
        "listen": {"host": wish.host, "port": wish.port},
        "admin_socket": str(places.broker_admin),
        "workload_api": f"unix://{places.workload_api}",
        "attestor": {"host": server.address[0], "port": server.address[1]},
        "database": f"sqlite:{places.broker_database}",
        "keys": _keys(places.broker_keys, wish),
        "policies": [str(places.policies)],
        "targets_folder": str(places.state / "targets"),
    }
    return BrokerSettings.model_validate_json(json.dumps(said))


def _warnings() -> Iterable[str]:
    if os.geteuid() != 0:
        yield "agents of your own uid are not contained: they can read each other's memory and files"


def _write(path: Path, text: str) -> None:
    """A private file, whole or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
