"""A namespace of a Kubernetes API server by the letter, as the contract of engines sees it; no cluster runs here.

The door is a service that asks TokenReview about each token it is shown.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.engines.kubernetes import KubernetesEngine, Settings, open_engine
from broker.engines.protocol import Issued, Lent
from broker.model.role import Role
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.kubernetes import Kubernetes
from fakes.kubernetes import OWN_AUDIENCE, serving
from fakes.kubernetes_secrets import LendingCluster
from fakes.world import role
from servers.place import new_prefix

NAMESPACE, ACCOUNT = "shop", "invoices-reader"


@dataclass
class Service:
    """Somebody a token was shown to."""

    api: Kubernetes
    token: str
    audiences: list[str]

    async def answers(self) -> bool:
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        body = {**kind, "spec": {"token": self.token, "audiences": self.audiences}}
        found = await self.api.post("/apis/authentication.k8s.io/v1/tokenreviews", body)
        status: dict[str, Any] = found["status"]
        return status["authenticated"] is True


@dataclass
class KubernetesPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    cluster: LendingCluster
    api: Kubernetes

    async def login(self, issued: Issued) -> Service | None:
        audiences = list(self.role.settings.get("audiences", [OWN_AUDIENCE]))
        service = Service(self.api, issued.secret["token"].reveal(), audiences)
        return service if await service.answers() else None


def settings_for(cluster: LendingCluster, **more: Any) -> Settings:
    """As an operator would say it."""
    where = {"server": cluster.settings.server, "token_file": str(cluster.token_file), "ca_file": str(cluster.ca_file)}
    said = {"kind": "kubernetes", "namespace": NAMESPACE, "api": where, **more}
    return Settings.model_validate_json(json.dumps(said))


@asynccontextmanager
async def kubernetes_place(
    *, clock: Clock | None = None, remembered: str = "0s", **settings: Any
) -> AsyncIterator[KubernetesPlace]:
    """A cluster of its own, whose API server remembers nothing unless it is told."""
    clock = clock or SystemClock()
    with tempfile.TemporaryDirectory(prefix="sj-kube-", dir="/tmp") as folder:
        async with serving(LendingCluster(Path(folder), clock.now)) as cluster:
            cluster.accounts.add((NAMESPACE, ACCOUNT))
            said = settings_for(cluster, remembered=remembered)
            lent = Lent(clock=clock, target="cluster")
            async with open_engine(said, lent) as engine, Kubernetes(cluster.settings) as api:
                rights = {"service_account": ACCOUNT, **settings}
                the_role = role("cluster", "invoices", engine="kubernetes", settings=rights)
                found: KubernetesEngine = engine
                yield KubernetesPlace(found, the_role, clock, new_prefix(), cluster, api)
