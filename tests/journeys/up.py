"""A real `sojourn up` in a process of its own, for journeys.

async with up() as running:
    await running.sojourn("svid", "fetch")
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from attestor.client.admin import AdminClient
from broker.client.broker import Broker
from ca.runtime.places import Places, make
from journeys.processes import SOJOURN, Finished, Running, short_folder, sojourn, started

TRUST_DOMAIN = "journey.test"


@dataclass(kw_only=True)
class RunningUp:
    """It answers."""

    running: Running
    places: Places
    told: Mapping[str, Any]

    @property
    def address(self) -> str:
        """Where agents reach the broker."""
        return str(self.told["broker"])

    @property
    def workload_api(self) -> str:
        """The socket, as SPIFFE_ENDPOINT_SOCKET has it."""
        return str(self.told["workload_api"])

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes commands find it, and no other."""
        return {"SOJOURN_STATE": str(self.places.state)}

    async def sojourn(self, *arguments: str, stdin: str = "") -> Finished:
        """A command beside it."""
        return await sojourn(*arguments, folder=self.places.state.parent, environment=self.environment, stdin=stdin)

    def operator(self) -> AbstractAsyncContextManager[Broker]:
        """The operators' socket of its broker."""
        return Broker.on_socket(self.places.broker_admin)

    def admin(self) -> AdminClient:
        """The operators' socket of its attestor server."""
        return AdminClient(self.places.server_admin)


@asynccontextmanager
async def up(
    *,
    rules: str | None = None,
    targets: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    trust_domain: str = TRUST_DOMAIN,
    descriptors: int | None = None,
) -> AsyncIterator[RunningUp]:
    """Start it in a folder of its own, with these rules and targets instead of those it begins with."""
    with short_folder() as folder:
        places = Places.of(folder / "up")
        make(places.state)
        if rules is not None:
            places.rules.write_text(rules)
        make(places.state / "targets")
        for name, text in (targets or {}).items():
            (places.state / "targets" / f"{name}.yaml").write_text(text)
        async with up_in(places, environment, trust_domain=trust_domain, descriptors=descriptors) as running:
            yield running


@asynccontextmanager
async def up_in(
    places: Places,
    environment: Mapping[str, str] | None = None,
    *,
    stopped: bool = True,
    trust_domain: str = TRUST_DOMAIN,
    descriptors: int | None = None,
    key: str | None = None,
) -> AsyncIterator[RunningUp]:
    """Start it on the state folder of `places`, and stop it in order at the end, unless the test kills it itself."""
    command: tuple[str, ...] = (SOJOURN, "up", "--state", str(places.state), "--trust-domain", trust_domain)
    if key is not None:
        command = (*command, "--key", key)
    if descriptors is not None:
        command = ("/bin/sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command)
    async with started(*command, folder=places.state.parent, name="up", environment=environment) as running:
        await running.line("Next:")
        yield RunningUp(running=running, places=places, told=json.loads(places.running.read_text()))
        if stopped:
            assert await running.end() == 0
