"""A broker, and a Workload API that knows every process of this machine as `/agent`, for commands to meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

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


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Both, for as long as the test runs."""
    authority = TestAuthority(now=CLOCK.now())
    issuer = FakeIssuer(authority, ManualClock(CLOCK.now()))
    (tmp_path / "w").mkdir()
    async with (
        doors(tmp_path, authority=authority) as found,
        workload_api(tmp_path / "w", issuer=issuer, clock=ManualClock(CLOCK.now())) as agent,
    ):
        environment = {
            "SOJOURN_BROKER": found.url,
            "SOJOURN_BROKER_ADMIN": str(found.socket),
            "SOJOURN_STATE": str(tmp_path / "s"),
            "SPIFFE_ENDPOINT_SOCKET": agent.address,
        }
        yield Place(found, environment, tmp_path / "s")
