"""A real OAuth server as the contract of engines sees it; a service that asks it about each token is the door."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.engines.oauth import OAuth, Settings, open_engine
from broker.engines.protocol import Issued, Lent
from broker.model.role import Role
from broker.store.sealed import Sealed
from ca.keys.memory import MemoryKeyStore
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.fetch import Fetcher, Trust
from ca.runtime.secret import Secret
from ca.runtime.sqlite import open_sqlite
from ca.seal import AesSeal
from fakes.world import role, settle
from servers.oauth import CLIENT, WATCHER, OAuthServer, oauth_server
from servers.place import new_prefix

LIFE = 40


class Durable(MemoryKeyStore):
    """Keys that say they rest: for the length of one test."""

    durable = True


@dataclass
class Service:
    """Somebody a token was shown to, who asks the server whether it is good."""

    place: OAuthPlace
    token: Secret

    async def answers(self) -> bool:
        return await self.place.active(self.token)


@dataclass
class OAuthPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    server: OAuthServer
    fetcher: Fetcher
    vault: Sealed

    async def login(self, issued: Issued) -> Service | None:
        token = issued.secret["access_token"]
        return Service(self, token) if await self.active(token) else None

    async def active(self, token: Secret) -> bool:
        """What the server tells a service of ours."""
        pair = base64.b64encode(f"{WATCHER}:{self.server.watcher_secret}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/x-www-form-urlencoded"}
        url = f"{self.server.issuer}/token/introspection"
        answer = await self.fetcher.post(url, b"token=" + token.reveal().encode(), headers)
        found: bool = answer.json()["active"]
        return found


def settings_for(server: OAuthServer, **more: Any) -> Settings:
    """As an operator would say it; the secret is in the environment of this process."""
    said: dict[str, Any] = {
        "kind": "oauth",
        "issuer": server.issuer,
        "client_id": CLIENT,
        "tls_ca": str(server.ca_file),
    }
    if more.get("authentication") == "client_secret_basic":
        os.environ["SOJOURN_TEST_OAUTH"] = server.secret
        said["client_secret"] = "env:SOJOURN_TEST_OAUTH"
    return Settings.model_validate_json(json.dumps({**said, **more}))


@asynccontextmanager
async def oauth_place(
    *, authentication: str = "private_key_jwt", ends: str = "at-once", grant: str = "client_credentials", **server: Any
) -> AsyncIterator[OAuthPlace]:
    """A server of its own, and a client that is known to it."""
    clock, keys = SystemClock(), Durable()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = await enter(open_sqlite(folder / "store.db"))
        await settle(database)
        vault = Sealed(database, AesSeal(bytes(32)), clock)
        lent = Lent(clock=clock, keys=keys, vault=vault, target="partner")
        jwks = await _jwks(lent) if authentication == "private_key_jwt" else None
        running = await enter(oauth_server(jwks=jwks, life=LIFE, **server))
        engine: OAuth = await enter(open_engine(settings_for(running, authentication=authentication, ends=ends), lent))
        fetcher = await enter(Fetcher(Trust(ca_file=running.ca_file)))
        scope = ["openid", "read"] if grant == "refresh_token" else ["read"]
        the_role = role(target="partner", engine="oauth", settings={"grant": grant, "scope": scope})
        if running.refresh is not None:
            await vault.write(f"value/partner/{the_role.name}", Secret(running.refresh))
        yield OAuthPlace(engine, the_role, clock, new_prefix(), running, fetcher, vault)


async def _jwks(lent: Lent) -> Any:
    """What the server's owner is given once, before there is a server."""
    said = {"kind": "oauth", "token_endpoint": "https://127.0.0.1/token", "client_id": CLIENT}
    async with open_engine(Settings.model_validate_json(json.dumps(said)), lent) as engine:
        return json.loads(await engine.authority())
