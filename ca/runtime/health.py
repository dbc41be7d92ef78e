"""What a process tells machines about itself, on a port of its own: `/healthz`, `/readyz`, `/metrics`.

`/healthz` answers 200 as long as the event loop turns: a process that is ill ends itself (the law of the dead loop).
`/readyz` answers 200 when every part can serve, else 503 and what each one waits for. `/metrics` is Prometheus' text.
Nothing here needs proof of who asks, so nothing here names a task, an identity, a path or a secret, and nothing can be
changed; the port belongs on an address only operators reach.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from ca.runtime.crowd import OPERATORS, Crowd, listening_at
from ca.runtime.metrics import CONTENT_TYPE, Metrics
from ca.runtime.process import Readiness

_PATIENCE = 1.0
"""Seconds the last answers may take when the process stops."""


@asynccontextmanager
async def serve_health(readiness: Readiness, metrics: Metrics, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Answer on `host` and `port` (0: a free one) while the block runs; gives the address that was bound.

    Raises:
        Conflict: the address can't be bound.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        status = 200 if readiness.is_ready else 503
        return web.json_response(readiness.report(), status=status, dumps=lambda value: json.dumps(value, indent=2))

    async def scrape(_: web.Request) -> web.Response:
        metrics.set("sojourn_ready", 1 if readiness.is_ready else 0)
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    application = web.Application(client_max_size=1024)
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_PATIENCE)
    await runner.setup()
    try:
        assert runner.server is not None
        async with listening_at(host, port, Crowd(OPERATORS), runner.server, handshake=_PATIENCE) as bound:
            yield bound
    finally:
        await runner.cleanup()
