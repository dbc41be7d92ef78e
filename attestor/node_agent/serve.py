"""The composition root of a node agent: read top to bottom, it starts; left, it stops in the reverse order."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attestor.methods.node import k8s_psat, oidc, tpm, x509pop
from attestor.methods.node.protocol import Prover
from attestor.node_agent.admin_api import AdminApi
from attestor.node_agent.admission import Address
from attestor.node_agent.attest import Attestor
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.identity import IdentityFile
from attestor.node_agent.joining import ByMethod, ByToken, Joining
from attestor.node_agent.journal import Journal
from attestor.node_agent.limits import REFUSED, ConnectionLimit, affordable
from attestor.node_agent.references import References
from attestor.node_agent.reflection import Reflection
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.sds import SecretDiscovery
from attestor.node_agent.settings import Attest, NodeAgentSettings
from attestor.node_agent.sources import open_attestor
from attestor.node_agent.spiffe_broker_api import SpiffeBrokerApi
from attestor.node_agent.upstream import Upstream
from attestor.node_agent.workload_api import WorkloadApi
from ca.errors import Malformed, Problem
from ca.runtime import grpc, log, places, web
from ca.runtime.clock import Clock
from ca.runtime.crowd import Crowd
from ca.runtime.health import serve_health
from ca.runtime.metrics import Metrics
from ca.runtime.process import Part, Readiness, Wake, background, task
from ca.runtime.secret import Secret
from ca.spiffe.endpoint import UnixEndpoint

LOOK_EVERY = 1.0
"""Seconds between two looks at what is due."""
LONGEST_REQUEST = 256 * 1024
"""Bytes of a workload's message: whoever is on the machine may send one, and no question of the standard needs more."""
DRAIN = 2.0
"""Seconds calls get to finish when it stops; streams are told at once."""

_log = log.get(__name__)
_REFUSED = frozenset({"untrusted", "revoked", "malformed"})


@asynccontextmanager
async def serve(
    settings: NodeAgentSettings,
    clock: Clock,
    readiness: Readiness,
    *,
    metrics: Metrics | None = None,
    join_token: Secret | None = None,
) -> AsyncIterator[None]:
    """Run a node agent while the block runs; its sockets listen when it is entered.

    It need not reach the server for that: `readiness` says what it waits for, and until the server has spoken the
    Workload API answers Unavailable, as the standard wants. `join_token` is for whoever has one at hand; else it is
    where settings say.

    Raises:
        Conflict: another node agent uses the state folder.
        AlreadyRunning: another process listens on one of the sockets.
        Malformed: others may read the node's key.
    """
    metrics = metrics or Metrics()
    part = readiness.part("node agent")
    part.waiting("the attestor server")
    async with AsyncExitStack() as stack:
        parts = await _assemble(stack, settings, clock, part, metrics=metrics, joining=_joining(settings, join_token))
        await _loops(stack, parts, clock, metrics)
        await _listeners(stack, parts, settings, metrics)
        await _broker_listener(stack, parts, settings, clock, metrics)
        if settings.health is not None:
            health = serve_health(readiness, metrics, settings.health.host, settings.health.port)
            await stack.enter_async_context(health)
        _log.info("the Workload API listens", socket=str(settings.workload_socket), restored=len(parts.holdings))
        yield
        part.waiting("its stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a node agent is made of."""

    connections: int
    wake: Wake
    holdings: Holdings
    upstream: Upstream
    attestor: Attestor
    renewal: Renewal
    workload_api: WorkloadApi
    sds: SecretDiscovery
    admin_api: AdminApi


def _joining(settings: NodeAgentSettings, at_hand: Secret | None) -> Joining:
    """How this node proves itself when it must. Raises Malformed."""
    if settings.attest is None:
        read = settings.join_token.read if settings.join_token else None
        return ByToken((lambda: at_hand) if at_hand is not None else read)
    chosen = settings.attest
    return ByMethod(
        chosen.method,
        partial(_prover, chosen),
        trust_bundle=settings.trust_bundle,
        root_key_hash=settings.root_key_hash,
    )


def _prover(chosen: Attest, public_key: bytes) -> Prover:
    match chosen.method:
        case "k8s_psat":
            return k8s_psat.Prover(chosen)
        case "oidc":
            return oidc.Prover(chosen)
        case "tpm":
            return tpm.Prover(chosen, public_key)
        case "x509pop":
            return x509pop.Prover(chosen, public_key)


async def _assemble(
    stack: AsyncExitStack,
    settings: NodeAgentSettings,
    clock: Clock,
    part: Part,
    *,
    metrics: Metrics,
    joining: Joining,
) -> _Parts:
    """From the disk upwards; processes that were held before are held again."""
    connections, processes = affordable(settings.limits.connections, settings.limits.processes)
    state = places.make(settings.state)
    journal = Journal(state / "instances.journal")
    stack.callback(journal.close)
    wake, report = Wake(), Wake()
    holdings = Holdings(journal, most=processes, ended=report.set)
    stack.callback(holdings.close)
    holdings.restore()
    upstream = Upstream(
        Address(*settings.addresses()[0], settings.trust_domain, settings.addresses()[1:]),
        identity_file=IdentityFile(state / "identity.json", settings.trust_domain),
        joining=joining,
        holdings=holdings,
        clock=clock,
        wake=wake,
        report=report,
        part=part,
    )
    attestor = await open_attestor(stack, settings, clock, metrics)
    renewal = Renewal(holdings, attestor, upstream, clock)
    return _Parts(
        connections=connections,
        wake=wake,
        holdings=holdings,
        upstream=upstream,
        attestor=attestor,
        renewal=renewal,
        workload_api=WorkloadApi(renewal, upstream, clock, settings.trust_domain, settings.workload_api.profiles()),
        sds=SecretDiscovery(renewal, upstream, settings.trust_domain, settings.envoy.naming(), metrics),
        admin_api=AdminApi(holdings, attestor, upstream, part),
    )


async def _loops(stack: AsyncExitStack, parts: _Parts, clock: Clock, metrics: Metrics) -> None:
    """Everything that is due by itself."""
    await stack.enter_async_context(task("upstream", parts.upstream.run))
    for name, label, tick, wake in (
        ("node identity", "nodes", parts.upstream.tick, None),
        ("renewal", "renewal", parts.renewal.tick, parts.wake),
    ):
        count = metrics.ticks(label)
        await stack.enter_async_context(background(name, tick, every=LOOK_EVERY, clock=clock, wake=wake, count=count))


async def _listeners(stack: AsyncExitStack, parts: _Parts, settings: NodeAgentSettings, metrics: Metrics) -> None:
    """Everything that can be asked."""
    limit = ConnectionLimit(parts.connections)
    accept, release = limit.accept, limit.release
    crowd = Crowd(limit.most + 2 * REFUSED, share=1.0)  # what is over the limit is held to hear why
    options = grpc.Options(
        accept=accept, release=release, limit=LONGEST_REQUEST, metrics=metrics, drain=DRAIN, crowd=crowd
    )
    workloads = _folder(settings.workload_socket, mode=0o711)  # processes of other users pass through it
    methods = [*parts.workload_api.methods(), *parts.sds.methods()]
    methods += Reflection(methods).methods()
    await stack.enter_async_context(grpc.listen_unix(methods, workloads, mode=0o666, options=options))
    admin = web.application(parts.admin_api.routes(), metrics=metrics)
    mode = 0o666 if settings.admin_uids else 0o600  # with others allowed the kernel's word about their uid decides
    operators = _folder(settings.admin_socket, mode=0o700)
    allowed = {os.geteuid(), *settings.admin_uids}
    await stack.enter_async_context(web.listen_unix(admin, operators, mode=mode, allow_uids=allowed))


async def _broker_listener(
    stack: AsyncExitStack, parts: _Parts, settings: NodeAgentSettings, clock: Clock, metrics: Metrics
) -> None:
    """The SPIFFE Broker API, when settings want it."""
    chosen, upstream = settings.spiffe_broker_api, parts.upstream
    if chosen is None:
        return
    references = References(parts.renewal, parts.holdings, settings.trust_domain)
    api = SpiffeBrokerApi(
        renewal=parts.renewal,
        references=references,
        issuer=upstream,
        clock=clock,
        own=settings.trust_domain,
        allowed=chosen.allowed(),
        svid=lambda: upstream.identity.svid if upstream.identity else None,
    )

    def refused(problem: Problem) -> None:
        reason = problem.code if problem.code in _REFUSED else "other"
        metrics.count("sojourn_handshakes_refused_total", reason=reason)
        _log.warning("the handshake of a gateway was refused", error=problem)

    context = api.context(refused)
    crowd = Crowd(chosen.connections, metrics=metrics)
    options = api.options(grpc.Options(metrics=metrics, drain=DRAIN, crowd=crowd))
    if isinstance(chosen.endpoint, UnixEndpoint):
        path = _folder(Path(chosen.endpoint.path), mode=0o711)
        await stack.enter_async_context(grpc.listen_unix(api.methods(), path, ssl=context, options=options))
        if chosen.group is not None:
            _give(path, chosen.group)
        where = str(path)
    else:
        host, port = chosen.endpoint.host, chosen.endpoint.port
        bound = await stack.enter_async_context(
            grpc.listen_tls(api.methods(), host=host, port=port, ssl=context, options=options)
        )
        where = f"{bound[0]}:{bound[1]}"
    _log.info("the SPIFFE Broker API listens", address=where, callers=len(chosen.allow))


def _give(socket: Path, group: int) -> None:
    """Let the members of `group` connect; a handshake is work, so it is not for everybody. Raises Malformed."""
    try:
        os.chown(socket, -1, group)
        socket.chmod(0o660)
    except OSError as error:
        raise Malformed(f"can't give `{socket}` to the group {group}: {error.strerror}") from error


def _folder(socket: Path, *, mode: int) -> Path:
    """Where a socket is to be; whoever may write there could put one of his own in its place. Raises Malformed."""
    if not socket.parent.exists():
        places.make(socket.parent, mode=mode)
    found = socket.parent.stat()
    if found.st_uid not in {0, os.geteuid()} or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
        raise Malformed(f"the folder `{socket.parent}` can be written by others: expected one of this user or root")
    return socket
