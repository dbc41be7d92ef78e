"""What examples/ shows is run as it stands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import aiohttp
import pytest

from attestor.client.http import client_session
from attestor.client.source import X509Source
from ca.spiffe.match import IdPattern
from journeys.orders import orders
from journeys.processes import ROOT, SOJOURN, finished, started
from journeys.up import TRUST_DOMAIN, up

AGENTS = {
    "count_orders.py": (sys.executable,),
    "nightly_report.py": (sys.executable,),
    "count_orders.sh": ("/bin/sh",),
    "follow_orders.py": (sys.executable,),
}
"""Each example that reads the orders, and what runs it."""


async def test_each_agent_gets_its_rows_and_leaves_nothing() -> None:
    """It prints what it read as a user of its own; when it has ended the server has no user of ours."""
    async with orders() as stage:
        environment = {"SPIFFE_ENDPOINT_SOCKET": stage.up.workload_api, "SOJOURN_BROKER": stage.up.address}
        environment["PATH"] = f"{Path(SOJOURN).parent}:{os.environ['PATH']}"
        for name, runner in AGENTS.items():
            done = await finished(
                *runner,
                str(ROOT / "examples" / name),
                folder=stage.up.places.state.parent,
                environment=environment,
            )
            assert (done.code, done.out.splitlines()[0]) == (0, "3"), done.err
            assert await stage.users() == set()


async def test_a_service_that_knows_who_calls() -> None:
    """By name; who is not wanted is refused in the handshake."""
    rules = f"""\
rules:
  - {{name: example, when: ["unix:uid:{os.getuid()}"], spiffe_id: /team/a, children: true}}
"""
    own = f"spiffe://{TRUST_DOMAIN}/team/a"
    example = (sys.executable, str(ROOT / "examples" / "who_calls.py"))
    async with up(rules=rules) as running, X509Source.open(running.workload_api) as source:
        home, environment = running.places.state.parent, {"SPIFFE_ENDPOINT_SOCKET": running.workload_api}
        async with client_session(source, IdPattern.parse(own)) as session:
            async with (
                started(*example, own, folder=home, name="one", environment=environment) as service,
                session.get(await service.line("https")) as answer,
            ):
                assert await answer.text() == f"hello {own}\n"
            other = f"spiffe://{TRUST_DOMAIN}/team/b"
            async with started(*example, other, folder=home, name="two", environment=environment) as service:
                with pytest.raises(aiohttp.ClientError):
                    await session.get(await service.line("https"))
