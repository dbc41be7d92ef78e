"""A kubelet over real TLS: `/pods` for whoever shows the right token, and what may go wrong with it.

async with kubelet(tmp_path) as fake:
    pod = fake.add_pod("shop", "cart-0", containers={"main": container_id})
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from attestor.methods.workload.kubelet import KubeletSettings
from fakes.web_pki import WebAuthority

TOKEN = "the-node-agents-own-token"


class FakeKubelet:
    """Its pods, and its moods."""

    def __init__(self, folder: Path) -> None:
        self.authority = WebAuthority("kubelet CA")
        self.token_file, self.ca_file = folder / "kubelet-token", folder / "kubelet-ca.pem"
        self.token_file.write_text(f"{TOKEN}\n")
        self.ca_file.write_bytes(self.authority.pem)
        self.port = 0
        self.pods: list[dict[str, Any]] = []
        self.accepted = TOKEN
        self.status = 200
        self.body: bytes | None = None
        self.asked = 0
        self.most_at_once = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self._now = 0

    def settings(self, **changes: Any) -> KubeletSettings:
        """How to reach it."""
        known: dict[str, Any] = {"port": self.port, "ca_file": self.ca_file, "token_file": self.token_file}
        return KubeletSettings(**(known | {"deadline": timedelta(seconds=20)} | changes))

    def add_pod(
        self,
        namespace: str,
        name: str,
        containers: Mapping[str, str],
        *,
        uid: str | None = None,
        labels: Mapping[str, str] | None = None,
        kind: str = "containerStatuses",
        spec: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A pod with these containers, by name and id."""
        statuses = [
            {
                "name": one,
                "image": f"registry.example/{one}:1",
                "imageID": f"registry.example/{one}@sha256:{'d' * 64}",
                "containerID": f"containerd://{container}",
                "restartCount": 0,
            }
            for one, container in containers.items()
        ]
        meta = {"namespace": namespace, "name": name, "uid": uid or str(uuid.uuid4()), "labels": dict(labels or {})}
        specified = {"serviceAccountName": name, "nodeName": "node-1", "containers": [], **(spec or {})}
        pod = {"metadata": meta, "spec": specified, "status": {"phase": "Running", kind: statuses}}
        self.pods.append(pod)
        return pod

    async def answer(self, request: web.Request) -> web.Response:
        """`GET /pods`."""
        self.asked += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self.answering.wait()
        finally:
            self._now -= 1
        if request.headers.get("Authorization") != f"Bearer {self.accepted}":
            return web.Response(status=401, text="Unauthorized")
        pods = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.pods}).encode()
        return web.Response(status=self.status, body=pods if self.body is None else self.body)


@asynccontextmanager
async def kubelet(folder: Path, *names: str) -> AsyncIterator[FakeKubelet]:
    """One on a free port; its certificate has `names`, or that of a machine the node agent does not know it by."""
    fake = FakeKubelet(folder)
    app = web.Application()
    app.add_routes([web.get("/pods", fake.answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=fake.authority.server(*(names or ("node-1",))))
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        fake.answering.set()
        await runner.cleanup()
