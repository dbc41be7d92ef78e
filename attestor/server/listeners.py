"""Everything of an attestor server that can be asked: by nodes and brokers, by anybody, by its operators."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from attestor.server.admin_api import AdminApi
from attestor.server.direct_api import DirectApi
from attestor.server.node_api import BURST, PER_SECOND, NodeApi
from attestor.server.parts import Parts
from attestor.server.public_api import PublicApi
from attestor.server.risks import Risks
from attestor.server.settings import Listen
from attestor.server.task_api import TaskApi
from attestor.server.web_certificate import WebCertificate
from attestor.wire.node import NODE_PATH
from ca.errors import Problem
from ca.runtime import grpc, log, web
from ca.runtime.crowd import Crowd
from ca.runtime.rate import Rate
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Peer, check_not_revoked, verify
from ca.tls import OnRefusal, TlsMaterial, public_context, server_context

_log = log.get(__name__)
_REFUSED = frozenset({"untrusted", "revoked", "malformed"})


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server answers over TCP: nodes and brokers; and anybody, where the settings want it."""

    address: tuple[str, int]
    public_address: tuple[str, int] | None
    web_address: tuple[str, int] | None


async def open_listeners(stack: AsyncExitStack, parts: Parts) -> Listening:
    """Everything that can be asked, until `stack` is left."""
    settings, clock = parts.settings, parts.clock
    node_api = NodeApi(
        admission=parts.admission,
        workloads=parts.workloads,
        instances=parts.instances,
        leaves=parts.leaves,
        lists=parts.lists,
        federation=parts.federation,
        changes=parts.changes,
        clock=clock,
        beat=settings.beat,
        strangers=Rate(clock, burst=BURST, per_second=PER_SECOND),
    )
    task_api = TaskApi(
        trust_domain=settings.trust_domain,
        instances=parts.instances,
        identities=parts.task_identities,
        changes=parts.changes,
        clock=clock,
    )
    address = await stack.enter_async_context(
        grpc.listen_tls(
            (*node_api.methods(), *task_api.methods()),
            host=settings.listen.host,
            port=settings.listen.port,
            ssl=_tls(parts),
            options=grpc.Options(metrics=parts.metrics, crowd=_crowd(parts)),
        )
    )
    public, public_web = await _public(stack, parts)
    await _admin(stack, parts)
    return Listening(address, public, public_web)


async def _public(stack: AsyncExitStack, parts: Parts) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """What anybody may read, where the settings want it: with the server's own SVID, and as a web server."""
    settings, where, web_where = parts.settings, parts.settings.public, parts.settings.public_web
    routes = PublicApi(parts.authority, parts.lists, parts.clock).routes()

    async def listen(at: Listen, material: Callable[[], TlsMaterial], *more: web.Route) -> tuple[str, int]:
        app = web.application((*routes, *more), metrics=parts.metrics)
        context = public_context(material, on_refusal=_refused(parts), alpn=["http/1.1"])
        return await stack.enter_async_context(
            web.listen(app, host=at.host, port=at.port, ssl=context, crowd=_crowd(parts))
        )

    more = DirectApi(parts.direct, parts.clock).routes() if settings.direct else ()
    found = None if where is None else await listen(where, parts.own.material, *more)
    if web_where is None:
        return found, None
    return found, await listen(web_where, WebCertificate(web_where.certificate, web_where.key).material)


def _crowd(parts: Parts) -> Crowd:
    """The places of one listener that strangers reach."""
    return Crowd(parts.settings.limits.connections, listeners=parts.settings.listeners, metrics=parts.metrics)


async def _admin(stack: AsyncExitStack, parts: Parts) -> None:
    api = AdminApi(
        admission=parts.admission,
        instances=parts.instances,
        rules=parts.rules,
        hold=parts.hold,
        authority=parts.authority,
        rotation=parts.rotation,
        lists=parts.lists,
        database=parts.database,
        risks=Risks(parts.database, parts.metrics),
        federation=parts.federation,
        followers=parts.followers,
        clock=parts.clock,
    )
    path, more = parts.settings.admin_socket, parts.settings.admin_uids
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    app = web.application(api.routes(), metrics=parts.metrics)
    mode = 0o666 if more else 0o600  # with others allowed it is the kernel's word about their uid that decides
    await stack.enter_async_context(web.listen_unix(app, path, mode=mode, allow_uids={os.getuid(), *more}))


def _tls(parts: Parts) -> ssl.SSLContext:
    def judge(chain: Sequence[bytes]) -> X509Peer:
        now = parts.clock.now()
        peer = verify(chain, BundleSet.of(parts.authority.bundle(now)), now)
        if not peer.id.path.startswith(NODE_PATH):  # a node is told why by its first call, and attests anew (traps 38)
            check_not_revoked(peer.chain, peer.id, parts.lists.revocations)
        return peer

    return server_context(parts.own.material, judge, on_refusal=_refused(parts), client_certificate=False, alpn=["h2"])


def _refused(parts: Parts) -> OnRefusal:
    def refused(problem: Problem) -> None:
        reason = problem.code if problem.code in _REFUSED else "other"
        parts.metrics.count("sojourn_handshakes_refused_total", reason=reason)
        _log.warning("handshake refused", error=problem)

    return refused
