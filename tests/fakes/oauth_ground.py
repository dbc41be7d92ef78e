"""An engine over the OAuth server by the letter, with everything it is lent in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from broker.engines.oauth import OAuth, Settings, open_engine
from broker.engines.protocol import Lent
from broker.model.role import Role
from ca.keys.memory import MemoryKeyStore
from ca.runtime.clock import SystemClock
from ca.runtime.secret import Secret
from fakes.oauth_server import FakeOAuth, fake_oauth
from fakes.world import role

CLOCK = SystemClock()


@dataclass
class Shelf:
    """A vault in memory."""

    values: dict[str, list[Secret]] = field(default_factory=dict)

    async def read(self, name: str) -> Secret | None:
        return self.values[name][-1] if self.values.get(name) else None

    async def newest(self, name: str) -> tuple[int, Secret] | None:
        return (len(self.values[name]), self.values[name][-1]) if self.values.get(name) else None

    async def write(self, name: str, value: Secret) -> int:
        self.values.setdefault(name, []).append(value)
        return len(self.values[name])

    async def forget(self, name: str) -> None:
        self.values.pop(name, None)


class Ours:
    """Who the broker is."""

    async def token(self, audience: str) -> Secret:
        return Secret(f"svid-for-{audience}")


@dataclass
class Ground:
    engine: OAuth
    server: FakeOAuth
    vault: Shelf
    role: Role

    async def create(self, name: str = "sj_a_1", **settings: Any) -> Any:
        """A token of the role, or of one with other settings."""
        wanted = role(target="partner", engine="oauth", settings=settings) if settings else self.role
        now = CLOCK.now()
        handle = self.engine.plan(wanted, name)
        return await self.engine.create(handle, wanted, now + wanted.ttl, now + timedelta(seconds=10))

    async def end(self, name: str = "sj_a_1") -> None:
        await self.engine.end_access(self.engine.plan(self.role, name))

    @property
    def last(self) -> dict[str, str]:
        """What the token endpoint was sent last."""
        return [fields for path, fields in self.server.asked if path == "/token"][-1]


def settings(server: FakeOAuth, **more: Any) -> Settings:
    """As from a file; None leaves something out."""
    said = {"kind": "oauth", "issuer": server.issuer, "client_id": "sojourn", "tls_ca": str(server.ca_file)}
    said |= {"ends": "at-once"}
    return Settings.model_validate_json(
        json.dumps({key: one for key, one in {**said, **more}.items() if one is not None})
    )


@asynccontextmanager
async def ground(path: str = "", said: dict[str, Any] | None = None, **facts: Any) -> AsyncIterator[Ground]:
    """A server with these facts, and an engine with these settings."""
    vault = Shelf()
    lent = Lent(clock=CLOCK, keys=MemoryKeyStore(), vault=vault, tokens=Ours(), target="partner")
    async with fake_oauth(path, **facts) as server, open_engine(settings(server, **(said or {})), lent) as engine:
        yield Ground(engine, server, vault, role(target="partner", engine="oauth", settings={"scope": ["read"]}))
