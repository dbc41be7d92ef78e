"""TLS peer → Caller. Nothing in a header makes anybody anybody: X-Forwarded-Client-Cert is never read (traps 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from broker.model.caller import ALL_VERBS, Caller, Operator, Workload
from broker.model.ids import parse_instance
from broker.model.observed import Observation, Observer
from broker.service.operators import KnownOperators
from ca.errors import Unauthenticated
from ca.runtime.clock import Clock
from ca.runtime.web import peer_uid
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Peer, check_not_revoked
from ca.tls import peer_of


async def by_certificate(request: web.Request) -> Caller:
    """The workload or operator the handshake recognised. Raises Unauthenticated."""
    transport = request.transport
    peer = peer_of(transport.get_extra_info("ssl_object")) if transport is not None else None
    if isinstance(peer, Operator):
        return peer
    if not isinstance(peer, X509Peer):
        raise Unauthenticated("this needs a client certificate: an X.509-SVID")
    instance = parse_instance(peer.instance) if peer.instance is not None else None
    return Workload(id=peer.id, instance=instance, not_after=peer.not_after, peer=peer)


async def by_socket(request: web.Request) -> Caller:
    """Whoever may connect to the operators' socket is an operator with every verb; its uid is its name."""
    return Operator(name=f"uid {peer_uid(request)}", verbs=ALL_VERBS)


def still(
    clock: Clock,
    observer: Observer,
    operators: KnownOperators,
    revocations: Callable[[], RevocationLists] = RevocationLists,
) -> Callable[[Caller], Awaitable[None]]:
    """The question asked on every request and every write of a stream: is the caller still who it was (traps 35)?"""

    async def recheck(caller: Caller) -> None:
        if isinstance(caller, Operator):
            if not operators.knows(caller, clock.now()):
                raise Unauthenticated("this operator is not known any more, or its certificate has expired")
            return
        if clock.now() >= caller.not_after:
            raise Unauthenticated("the certificate of this connection has expired, connect again with a newer one")
        if caller.instance is not None and observer.observed(caller.instance).state is Observation.ENDED:
            raise Unauthenticated("the process this certificate was issued to has ended")
        if caller.peer is not None:
            check_not_revoked(caller.peer.chain, caller.id, revocations())

    return recheck
