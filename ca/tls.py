"""The handshake hook: who stands at the other end is known, or the connection never carries a byte.

OpenSSL proves that the peer holds the key of the certificate it shows. *Whose* certificate that is, is decided by a
`ChainVerifier`, right after the handshake and before the application hears of the connection: it gets the chain as the
peer showed it, and what it answers stays on the connection (`peer_of`). OpenSSL's own store is given every anchor
there is, pooled, only so that it asks for a certificate and admits the chain; `VERIFY_X509_PARTIAL_CHAIN` lets an
anchor be a leaf. That store never lets anybody in: the verifier looks at the bundle of the peer's own trust domain.
(It can keep somebody out: a federated authority with the name and key id of one of ours may be the one OpenSSL picks.)

- A refusal closes the connection without a TLS alert, so the other end hears no reason. It is told to `on_refusal`
  instead, with the name the peer claimed (traps 38); so are handshakes OpenSSL itself refuses.
- In TLS 1.3 a client that OpenSSL or the verifier refuses believes its handshake done, until it reads.
- A server looks at its material anew in each handshake: a new certificate or bundle needs no restart and no reload.
- No tickets and no resumption: a resumed session would outlive the SVID it began with.
- Blocking sockets pass the same hook; neither kind carries a byte before it, nor in the clear after TLS was closed.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Never

from ca.errors import Malformed, Problem
from ca.runtime.ciphers import CIPHERS
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Svid
from ca.tls_hook import (
    BlockingConnection,
    ChainVerifier,
    Connection,
    HandshakeRefused,
    Hook,
    HookedContext,
    OnRefusal,
    peer_of,
)

__all__ = [
    "ChainVerifier",
    "HandshakeRefused",
    "OnRefusal",
    "TlsMaterial",
    "check_material",
    "client_context",
    "peer_of",
    "public_context",
    "server_context",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """What one end of a connection shows, and the anchors by which OpenSSL admits the other end's chain.

    A client without a certificate has an empty `chain_pem`. A new object is a new version: contexts are kept per
    object, so the same one must come back while nothing has changed.
    """

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    anchors_der: tuple[bytes, ...]

    @classmethod
    def of(cls, svid: X509Svid, bundles: BundleSet, extra_anchors: Sequence[bytes] = ()) -> TlsMaterial:
        """The material of `svid`, admitting whatever a bundle or an extra anchor stands for."""
        anchors = dict.fromkeys([*bundles.anchors_der(), *extra_anchors])
        return cls(chain_pem=svid.chain_pem(), key_pem=svid.key_pem(), anchors_der=tuple(anchors))


def server_context(
    material: Callable[[], TlsMaterial],
    verify: ChainVerifier,
    *,
    on_refusal: OnRefusal,
    client_certificate: bool = True,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A context for servers, asyncio or blocking, that uses the newest material for each handshake.

    With `client_certificate=False` a client may come without a certificate (`peer_of` is then None); one it shows must
    hold all the same. `material` may raise a Problem while there is none: handshakes fail then, and nothing else.
    """
    mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_OPTIONAL
    hook = Hook(verify=verify, on_refusal=on_refusal, needs_chain=client_certificate)
    return _switching(material, hook, mode, alpn)


def public_context(
    material: Callable[[], TlsMaterial], *, on_refusal: OnRefusal, alpn: Sequence[str] = ()
) -> ssl.SSLContext:
    """A context for servers that anybody may read from: no client is asked for a certificate.

    Otherwise as `server_context`: the newest material for each handshake, no resumption.
    """
    hook = Hook(verify=_nobody, on_refusal=on_refusal, needs_chain=False)
    return _switching(material, hook, ssl.CERT_NONE, alpn)


def check_material(material: TlsMaterial) -> None:
    """Whether TLS could show it. Raises Malformed."""
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), material)


def client_context(
    material: TlsMaterial | None,
    verify: ChainVerifier,
    *,
    on_refusal: OnRefusal,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A context for clients, asyncio or blocking; make a new one when the material has changed.

    Host names are not looked at, the verifier knows whom it expects. Without material the verifier alone decides, as
    one that knows the server by its pinned key must.
    """
    hook = Hook(verify=verify, on_refusal=on_refusal, needs_chain=True)
    if material is None:
        return _bare(ssl.PROTOCOL_TLS_CLIENT, ssl.CERT_NONE, hook, alpn)
    context = _bare(ssl.PROTOCOL_TLS_CLIENT, ssl.CERT_REQUIRED, hook, alpn)
    _load(context, material)
    return context


class _Current:
    """The context of the newest material, kept as long as the material is the same object."""

    def __init__(self, material: Callable[[], TlsMaterial], bare: Callable[[], HookedContext]) -> None:
        self._material, self._bare = material, bare
        self._kept: tuple[TlsMaterial, HookedContext] | None = None

    def context(self) -> HookedContext:
        material = self._material()
        if self._kept is None or self._kept[0] is not material:
            context = self._bare()
            _load(context, material)
            self._kept = (material, context)
        return self._kept[1]


def _switching(
    material: Callable[[], TlsMaterial], hook: Hook, mode: ssl.VerifyMode, alpn: Sequence[str]
) -> ssl.SSLContext:
    """A server's context that leaves each handshake to the context of the newest material."""
    current = _Current(material, lambda: _bare(ssl.PROTOCOL_TLS_SERVER, mode, hook, alpn))
    outer = _bare(ssl.PROTOCOL_TLS_SERVER, mode, hook, alpn)

    def switch(connection: Any, _name: str | None, _outer: ssl.SSLContext) -> int | None:
        try:
            connection.context = current.context()
        except Problem as problem:
            hook.on_refusal(problem)
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        return None

    outer.sni_callback = switch
    return outer


def _nobody(chain: Sequence[bytes]) -> Never:
    """Nobody was asked for a certificate, so none can be shown."""
    raise HandshakeRefused(f"the peer showed {len(chain)} certificates and was asked for none")


def _bare(protocol: int, mode: ssl.VerifyMode, hook: Hook, alpn: Sequence[str]) -> HookedContext:
    """A context with everything but material.

    The switch at SNI carries over some of these settings and not others, so both contexts of a server are made here.
    """
    context = HookedContext(protocol)
    context.hook = hook
    context.sslobject_class = Connection
    context.sslsocket_class = BlockingConnection
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    context.check_hostname = False
    context.verify_mode = mode
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _load(context: ssl.SSLContext, material: TlsMaterial) -> None:
    try:
        if material.anchors_der:
            context.load_verify_locations(cadata=b"".join(material.anchors_der))
        if material.chain_pem:
            with _in_memory(material.chain_pem + material.key_pem) as path:
                context.load_cert_chain(path, password=_no_password)
    except ssl.SSLError as error:
        raise Malformed(f"TLS can't use this certificate, key or anchor: {error.reason or 'not readable'}") from error


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path to `data` that leads to no disk; OpenSSL by way of `ssl` reads keys from paths only."""
    descriptor = os.memfd_create("sojourn-tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _no_password() -> bytes:
    """Asked only for an encrypted key, where OpenSSL would otherwise ask the terminal."""
    return b""
