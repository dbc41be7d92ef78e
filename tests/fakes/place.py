"""A broker, and a Workload API that knows every process of this machine as `/agent`, for commands to meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.model.role import Role
from fakes.clock import ManualClock
from fakes.doors import CLOCK, Doors, doors
from fakes.issuer import FakeIssuer
from fakes.pki import TestAuthority
from fakes.workload import workload_api


@dataclass
class Place:
    """What runs, and the environment in which a command finds it."""

    doors: Doors
    environment: Mapping[str, str]
    state: Path


@asynccontextmanager
async def place(folder: Path, the_role: Role | None = None) -> AsyncIterator[Place]:
    """Both, for as long as the block runs."""
    authority = TestAuthority(now=CLOCK.now())
    issuer = FakeIssuer(authority, ManualClock(CLOCK.now()))
    (folder / "w").mkdir()
    async with (
        doors(folder, authority=authority, the_role=the_role) as found,
        workload_api(folder / "w", issuer=issuer, clock=ManualClock(CLOCK.now())) as agent,
    ):
        environment = {
            "SOJOURN_BROKER": found.url,
            "SOJOURN_BROKER_ADMIN": str(found.socket),
            "SOJOURN_STATE": str(folder / "s"),
            "SPIFFE_ENDPOINT_SOCKET": agent.address,
        }
        yield Place(found, environment, folder / "s")
