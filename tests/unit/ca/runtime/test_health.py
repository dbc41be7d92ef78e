"""Health, readiness and metrics on a port of their own."""

from __future__ import annotations

import aiohttp
import pytest

from ca.errors import Conflict
from ca.runtime.health import serve_health
from ca.runtime.metrics import Metrics
from ca.runtime.process import Readiness


async def get(address: tuple[str, int], path: str) -> tuple[int, str]:
    """Status and body."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address[0]}:{address[1]}{path}") as answer:
        return answer.status, await answer.text()


async def test_alive_is_not_ready() -> None:
    """A process that waits is healthy; what it waits for is said."""
    readiness = Readiness()
    part = readiness.part("identity")
    part.waiting("the Workload API at `unix:///run/x.sock`")
    async with serve_health(readiness, Metrics(), "127.0.0.1", 0) as address:
        assert (await get(address, "/healthz"))[0] == 200
        status, body = await get(address, "/readyz")
        assert (status, "the Workload API" in body) == (503, True)
        part.ready()
        assert (await get(address, "/readyz"))[0] == 200


async def test_metrics_are_rendered() -> None:
    """With readiness as it is at that moment."""
    metrics = Metrics()
    metrics.count("sojourn_decisions_total", effect="permit")
    async with serve_health(Readiness(), metrics, "127.0.0.1", 0) as address:
        status, body = await get(address, "/metrics")
    assert status == 200
    assert 'sojourn_decisions_total{effect="permit"} 1.0' in body
    assert "sojourn_ready 0.0" in body


async def test_nothing_else_is_there() -> None:
    """No other path, no other verb."""
    async with serve_health(Readiness(), Metrics(), "127.0.0.1", 0) as address:
        assert (await get(address, "/v1/tasks"))[0] == 404
        url = f"http://{address[0]}:{address[1]}/readyz"
        async with aiohttp.ClientSession() as session, session.post(url) as answer:
            assert answer.status == 405


async def test_an_address_in_use_is_a_sentence() -> None:
    """Which address, and why not."""
    async with serve_health(Readiness(), Metrics(), "127.0.0.1", 0) as (host, port):
        with pytest.raises(Conflict, match=f"can't listen at `{host}:{port}`"):
            async with serve_health(Readiness(), Metrics(), host, port):
                raise AssertionError
