"""Two targets that are one OAuth server; its clock is the broker's, and leaps with it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from faults.broker_process import ANNEX, DATABASE
from faults.eyes.http import Https
from faults.eyes.oauth import OAuthEyes
from faults.grounds.targets import two_roles
from servers.oauth import CLIENT, WATCHER, OAuthServer, oauth_server

LIFE = 65
"""Seconds: a token outlives a lease of a minute that nobody ends before."""


@dataclass
class OAuthGround:
    """See the module."""

    server: OAuthServer
    clock: Path
    eyes: OAuthEyes

    def facts(self) -> dict[str, Any]:
        """Of a case; the endpoints are said one by one, since an issuer tells those that no tap is in the way to."""
        where = {"token": "token", "revocation": "token/revocation", "introspection": "token/introspection"}
        engine = {f"{name}_endpoint": f"https://127.0.0.1:@PORT@/{path}" for name, path in where.items()}
        engine |= {"kind": "oauth", "client_id": CLIENT, "tls_ca": str(self.server.ca_file), "ends": "at-once"}
        engine |= {"authentication": "client_secret_basic", "client_secret": "env:SOJOURN_TARGET_PASSWORD"}
        engine["longest_token"] = "90s"
        said = {"engine": engine, "roles": two_roles({"scope": ["read"]}, {"scope": ["read", "write"]})}
        target = {"at": ["127.0.0.1", port_of(self.server)], "tls": True, "said": said}
        return {
            "targets": {DATABASE: target, ANNEX: target},
            "clock": str(self.clock),
            "environment": {"SOJOURN_TARGET_PASSWORD": self.server.secret},
            "room": {"kind": "oauth"},
            "superuser": {},
        }

    async def clear(self) -> None:
        """No time has leapt; tokens of an earlier world have no names that could be in the way."""
        self.clock.write_text("0")

    async def restart(self) -> None:
        """Not in a world: this server would forget its tokens, which a real one does not."""


def port_of(server: OAuthServer) -> int:
    """Where it answers."""
    return urlsplit(server.issuer).port or 443


@asynccontextmanager
async def oauth_ground() -> AsyncIterator[OAuthGround]:
    """A server of its own."""
    with tempfile.TemporaryDirectory(prefix="sj-oauth-", dir="/tmp") as name:
        clock, log = Path(name, "ahead"), Path(name, "log")
        clock.write_text("0")
        log.touch()
        async with oauth_server(life=LIFE, ahead=clock, log=log) as server:
            https = Https(port_of(server), server.ca_file)
            yield OAuthGround(server, clock, OAuthEyes(https, WATCHER, server.watcher_secret, log))
