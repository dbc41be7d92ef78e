"""Two targets that are one namespace of a Kubernetes API server by the letter, in a thread of its own.

Its clock is the broker's and leaps with it; like the real one it remembers for some seconds that a token was good.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from fakes.kubernetes import OWN_TOKEN, serving
from fakes.kubernetes_secrets import LendingCluster
from faults.broker_process import ANNEX, DATABASE
from faults.case import LeapingClock
from faults.eyes.http import Https
from faults.eyes.kubernetes import KubernetesEyes
from faults.grounds.targets import two_roles

NAMESPACE, ACCOUNTS = "shop", ("reader", "writer")
REMEMBERED = timedelta(seconds=3)


class Heard(LendingCluster):
    """It writes down what it is asked for, but for what it is asked to look at."""

    @property
    def log(self) -> Path:
        """One line a request."""
        return self.folder / "log"

    @web.middleware
    async def gate(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """As the other."""
        if not request.path.endswith("/tokenreviews"):
            with self.log.open("a") as file:
                file.write(f"{request.method} {request.path_qs} {await request.text()}\n")
        return await super().gate(request, handler)


@dataclass
class KubernetesGround:
    """See the module."""

    cluster: Heard
    loop: asyncio.AbstractEventLoop
    clock: Path
    eyes: KubernetesEyes

    def facts(self) -> dict[str, Any]:
        """Of a case."""
        cluster = self.cluster
        api = {"server": "https://127.0.0.1:@PORT@", "token_file": str(cluster.token_file)}
        api["ca_file"] = str(cluster.ca_file)
        engine = {"kind": "kubernetes", "namespace": NAMESPACE, "api": api}
        engine["remembered"] = f"{REMEMBERED.seconds}s"
        read, write = ({"service_account": account} for account in ACCOUNTS)
        said = {"engine": engine, "roles": two_roles(read, write)}
        target = {"at": ["127.0.0.1", cluster.port], "tls": True, "said": said}
        at = {"server": f"https://127.0.0.1:{cluster.port}", "ca_file": str(cluster.ca_file), "namespace": NAMESPACE}
        return {
            "targets": {DATABASE: target, ANNEX: target},
            "clock": str(self.clock),
            "lingers": self.eyes.lingers,
            "room": {"kind": "kubernetes", **at},
            "superuser": {"token": OWN_TOKEN},
        }

    async def clear(self) -> None:
        """No Secret is there, the claim neither, and no time has leapt."""
        self.clock.write_text("0")
        self._there(self.cluster.secrets.clear)
        self._there(self.cluster.seen.clear)

    async def restart(self) -> None:
        """It forgets which tokens were good, and nothing else: what it keeps is in etcd."""
        self._there(self.cluster.seen.clear)

    def _there(self, deed: Callable[[], None]) -> None:
        """In its own thread."""

        async def done() -> None:
            deed()

        asyncio.run_coroutine_threadsafe(done(), self.loop).result(60)


@contextmanager
def _elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that goes on while whoever opened it waits for something else."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


@asynccontextmanager
async def kubernetes_ground() -> AsyncIterator[KubernetesGround]:
    """A cluster of its own."""
    with tempfile.TemporaryDirectory(prefix="sj-kube-", dir="/tmp") as name, _elsewhere() as loop:
        folder = Path(name)
        clock = folder / "ahead"
        clock.write_text("0")
        cluster = Heard(folder, LeapingClock(clock).now)
        cluster.log.touch()
        cluster.accounts |= {(NAMESPACE, account) for account in ACCOUNTS}
        cluster.remembers = REMEMBERED
        standing = serving(cluster)
        asyncio.run_coroutine_threadsafe(standing.__aenter__(), loop).result(60)
        try:
            eyes = KubernetesEyes(Https(cluster.port, cluster.ca_file), NAMESPACE, OWN_TOKEN, cluster.log)
            yield KubernetesGround(cluster, loop, clock, eyes)
        finally:
            asyncio.run_coroutine_threadsafe(standing.__aexit__(None, None, None), loop).result(60)
