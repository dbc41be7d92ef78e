"""The composition root of a node agent: read top to bottom, it starts; left, it stops in the reverse order."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from attestor.methods.workload import load
from attestor.node_agent.admin_api import AdminApi
from attestor.node_agent.admission import Address
from attestor.node_agent.attest import Attestor
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.identity import IdentityFile
from attestor.node_agent.journal import Journal
from attestor.node_agent.limits import ConnectionLimit, affordable
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.settings import NodeAgentSettings
from attestor.node_agent.upstream import Upstream
from attestor.node_agent.workload_api import WorkloadApi
from ca.runtime import grpc, log, places, web
from ca.runtime.clock import Clock
from ca.runtime.health import serve_health
from ca.runtime.metrics import Metrics
from ca.runtime.process import Readiness, Wake, background, task

LOOK_EVERY = 1.0
"""Seconds between two looks at what is due."""

_log = log.get(__name__)


@asynccontextmanager
async def serve(
    settings: NodeAgentSettings, clock: Clock, readiness: Readiness, *, metrics: Metrics | None = None
) -> AsyncIterator[None]:
    """Run a node agent while the block runs; its sockets listen when it is entered.

    It need not reach the server for that: `readiness` says what it waits for, and until the server has spoken the
    Workload API answers Unavailable, as the standard wants.
    """
    metrics = metrics or Metrics()
    part = readiness.part("node agent")
    part.waiting("the attestor server")
    connections, processes = affordable(settings.limits.connections, settings.limits.processes)
    async with AsyncExitStack() as stack:
        state = places.make(settings.state)
        journal = Journal(state / "instances.journal")
        stack.callback(journal.close)
        wake, report = Wake(), Wake()
        holdings = Holdings(journal, most=processes, ended=report.set)
        stack.callback(holdings.close)
        holdings.restore()
        upstream = Upstream(
            Address(settings.server.host, settings.server.port, settings.trust_domain),
            identity_file=IdentityFile(state / "identity.json", settings.trust_domain),
            join_token=settings.join_token,
            holdings=holdings,
            clock=clock,
            wake=wake,
            report=report,
            part=part,
        )
        source = load("unix").UnixSource(discover_path=settings.unix.path, hash_limit=settings.unix.hash_limit)
        stack.callback(source.close)
        attestor = Attestor([source], shared_uids=settings.unix.shared_uids)
        renewal = Renewal(holdings, attestor, upstream, clock)
        await stack.enter_async_context(task("upstream", upstream.run))
        await stack.enter_async_context(
            background("node identity", upstream.tick, every=LOOK_EVERY, clock=clock, count=metrics.ticks("nodes"))
        )
        await stack.enter_async_context(
            background(
                "renewal", renewal.tick, every=LOOK_EVERY, clock=clock, wake=wake, count=metrics.ticks("renewal")
            )
        )
        limit = ConnectionLimit(connections)
        options = grpc.Options(accept=limit.accept, release=limit.release, metrics=metrics, drain=0.0)
        api = WorkloadApi(renewal, upstream, clock)
        await stack.enter_async_context(
            grpc.listen_unix(api.methods(), _reachable(settings.workload_socket), mode=0o666, options=options)
        )
        admin = web.application(AdminApi(holdings, attestor, upstream, part).routes(), metrics=metrics)
        allowed = {os.geteuid(), *settings.admin_uids}
        await stack.enter_async_context(
            web.listen_unix(admin, _private(settings.admin_socket), mode=0o600, allow_uids=allowed)
        )
        if settings.health is not None:
            health = serve_health(readiness, metrics, settings.health.host, settings.health.port)
            await stack.enter_async_context(health)
        _log.info("the Workload API listens", socket=str(settings.workload_socket), restored=len(holdings))
        yield


def _reachable(socket: Path) -> Path:
    """Processes of other users reach this one: its folder may be passed through."""
    if not socket.parent.exists():
        places.make(socket.parent, mode=0o711)
    return socket


def _private(socket: Path) -> Path:
    if not socket.parent.exists():
        places.make(socket.parent)
    return socket
