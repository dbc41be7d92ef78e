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
"""

from __future__ import annotations

import _ssl
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Never, TypeAlias

from ca.errors import Malformed, Problem, Unauthenticated
from ca.spiffe import der, leaf
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Svid

ChainVerifier: TypeAlias = Callable[[Sequence[bytes]], object]
"""The peer's chain in DER, its leaf first -> who that is; raises a Problem to refuse. A server that only asks for a
certificate does not call it for a client without one."""

OnRefusal: TypeAlias = Callable[[Problem], None]
"""Told of each refused handshake: the reason is its text, `details["peer"]` what the peer claimed to be."""


class HandshakeRefused(Unauthenticated):
    """OpenSSL refused the peer before its chain could be judged."""

    code = "handshake-refused"


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
    """A context for asyncio servers that uses the newest material for each handshake.

    With `client_certificate=False` a client may come without a certificate (`peer_of` is then None); one it shows must
    hold all the same. `material` may raise a Problem while there is none: handshakes fail then, and nothing else.
    """
    mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_OPTIONAL
    hook = _Hook(verify=verify, on_refusal=on_refusal, needs_chain=client_certificate)
    current = _Current(material, lambda: _bare(ssl.PROTOCOL_TLS_SERVER, mode, hook, alpn))
    outer = _bare(ssl.PROTOCOL_TLS_SERVER, mode, hook, alpn)

    def switch(connection: Any, _name: str | None, _outer: ssl.SSLContext) -> int | None:
        try:
            connection.context = current.context()
        except Problem as problem:
            on_refusal(problem)
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        return None

    outer.sni_callback = switch
    return outer


def client_context(
    material: TlsMaterial | None,
    verify: ChainVerifier,
    *,
    on_refusal: OnRefusal,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A context for asyncio clients; make a new one when the material has changed.

    Host names are not looked at, the verifier knows whom it expects. Without material the verifier alone decides, as
    one that knows the server by its pinned key must.
    """
    hook = _Hook(verify=verify, on_refusal=on_refusal, needs_chain=True)
    if material is None:
        return _bare(ssl.PROTOCOL_TLS_CLIENT, ssl.CERT_NONE, hook, alpn)
    context = _bare(ssl.PROTOCOL_TLS_CLIENT, ssl.CERT_REQUIRED, hook, alpn)
    _load(context, material)
    return context


def peer_of(ssl_object: object) -> Any | None:
    """What the verifier answered for this connection; None for a client that came without a certificate.

    `ssl_object` is `transport.get_extra_info("ssl_object")`; one that passed no hook of ours has no peer.
    """
    return ssl_object.peer if isinstance(ssl_object, _Connection) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hook:
    """Judges one finished handshake."""

    verify: ChainVerifier
    on_refusal: OnRefusal
    needs_chain: bool

    def judge(self, connection: ssl.SSLObject) -> object | None:
        """Who is there. Raises an SSLError, the one exception by which asyncio ends a handshake quietly."""
        chain: Sequence[bytes] = ()
        try:
            if connection.session_reused:
                raise HandshakeRefused("the peer resumed a session, and every connection has to prove itself anew")
            chain = _shown_chain(connection)
            if not chain and not self.needs_chain:
                return None
            return self.verify(chain)
        except Problem as problem:
            problem.details.setdefault("peer", _claimed(chain))
            self.on_refusal(problem)
            raise ssl.SSLCertVerificationError(1, str(problem)) from problem

    def failed(self, error: ssl.SSLError) -> None:
        """OpenSSL refused by itself."""
        reason = getattr(error, "verify_message", None) or (error.reason or "unknown").lower().replace("_", " ")
        self.on_refusal(HandshakeRefused(f"the TLS handshake failed: {reason}", peer="unknown"))


class _Connection(ssl.SSLObject):
    """A connection that is not open before its peer is known."""

    peer: object | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake; when TLS is through, let the hook judge."""
        hook = _hook_of(self.context)
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            hook.failed(error)
            raise
        self.peer = hook.judge(self)


class _NoBlocking(ssl.SSLSocket):
    """A blocking socket would never pass the hook, so there is none."""

    @classmethod
    def _create(cls, *_: object, **__: object) -> Never:
        raise RuntimeError("this TLS context is for asyncio; a blocking socket would skip the check of the peer")


class _Context(ssl.SSLContext):
    """A context that carries its hook to the connections made from it."""

    hook: _Hook


class _Current:
    """The context of the newest material, kept as long as the material is the same object."""

    def __init__(self, material: Callable[[], TlsMaterial], bare: Callable[[], _Context]) -> None:
        self._material, self._bare = material, bare
        self._kept: tuple[TlsMaterial, _Context] | None = None

    def context(self) -> _Context:
        material = self._material()
        if self._kept is None or self._kept[0] is not material:
            context = self._bare()
            _load(context, material)
            self._kept = (material, context)
        return self._kept[1]


def _hook_of(context: ssl.SSLContext) -> _Hook:
    if not isinstance(context, _Context):
        raise RuntimeError("a connection was moved to a TLS context without a check of the peer")  # noqa: TRY004
    return context.hook


def _bare(protocol: int, mode: ssl.VerifyMode, hook: _Hook, alpn: Sequence[str]) -> _Context:
    """A context with everything but material.

    The switch at SNI carries over some of these settings and not others, so both contexts of a server are made here.
    """
    context = _Context(protocol)
    context.hook = hook
    context.sslobject_class = _Connection
    context.sslsocket_class = _NoBlocking
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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


def _shown_chain(connection: ssl.SSLObject) -> list[bytes]:
    """The chain as the peer sent it, its leaf first, nothing of it verified by us yet."""
    shown = connection.getpeercert(binary_form=True)
    if shown is None:
        return []
    if sys.version_info >= (3, 13):
        return list(connection.get_unverified_chain())
    low: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001  # public from 3.13 on
    rest = [each.public_bytes(_ssl.ENCODING_DER) for each in low.get_unverified_chain() or ()]
    return rest if rest[:1] == [shown] else [shown, *rest]  # a server's OpenSSL leaves the leaf out


def _claimed(chain: Sequence[bytes]) -> str:
    if not chain:
        return "no certificate"
    try:
        return leaf.claimed_id(der.certificate(chain[0], "the peer's chain"))
    except Malformed:
        return "an unreadable certificate"
