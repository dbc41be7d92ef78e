"""TLS contexts that follow a source: the newest SVID in each handshake, and only the peers one wants.

The peer is judged by the bundle of *its own* trust domain (`ca.spiffe.x509svid.verify`), never by a pooled store, and
refused when its own issuer took it back; on a connection that stays open `X509Source.still_good` says so later. A
host name means nothing. A refusal closes the connection without a reason the other end could read, so it is logged here
with the reason and what the peer claimed to be (traps 38), and `refused` is told, to be counted.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import TypeAlias

from attestor.client.source import X509Material
from ca import tls
from ca.errors import Denied, Problem
from ca.runtime import log
from ca.spiffe import x509svid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import SpiffeId
from ca.spiffe.match import IdPattern
from ca.spiffe.x509svid import X509Peer, X509Svid
from ca.tls import TlsMaterial

Authorize: TypeAlias = Callable[[SpiffeId], bool] | IdPattern
"""Which peers are wanted."""

Recognise: TypeAlias = Callable[[Sequence[bytes]], object | None]
"""Asked first: whether this chain is of somebody who needs no SPIFFE ID, such as an operator."""

Refused: TypeAlias = Callable[[Problem], object]

_log = log.get(__name__)


class PeerUnwanted(Denied):
    """The peer proved who it is, and is not one we speak to here."""

    code = "peer-unwanted"


def server_context(
    source: X509Material,
    authorize: Authorize | None = None,
    *,
    client_certificate: bool = True,
    extra_anchors: Callable[[], Sequence[bytes]] = tuple,
    recognise: Recognise | None = None,
    refused: Refused | None = None,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A context for a server; `ca.tls.peer_of` tells a request who its peer is: an X509Peer, or what `recognise` said.

    Without `authorize` every peer with an identity is let in, for the application to decide. `extra_anchors` are
    further certificates (DER) by which OpenSSL admits chains for `recognise` to judge.
    """

    def verify(chain: Sequence[bytes]) -> object:
        known = None if recognise is None else recognise(chain)
        return _peer(source, authorize, chain) if known is None else known

    return tls.server_context(
        _Material(source, extra_anchors),
        verify,
        client_certificate=client_certificate,
        on_refusal=_told("a client was refused", refused),
        alpn=alpn,
    )


def client_context(
    source: X509Material, expect: Authorize, *, refused: Refused | None = None, alpn: Sequence[str] = ()
) -> ssl.SSLContext:
    """A context for one new connection to a server that `expect` wants. Raises NoIdentity while we have none."""
    return ClientContexts(source, expect, refused=refused, alpn=alpn).newest()


class ClientContexts:
    """Contexts for a client that connects again and again: one for each version of the material."""

    def __init__(
        self, source: X509Material, expect: Authorize, *, refused: Refused | None = None, alpn: Sequence[str] = ()
    ) -> None:
        self._source = source
        self._expect = expect
        self._material = _Material(source, tuple)
        self._told = _told("a server was refused", refused)
        self._alpn = tuple(alpn)
        self._made: tuple[TlsMaterial, ssl.SSLContext] | None = None

    def newest(self) -> ssl.SSLContext:
        """The context of the newest material. Raises NoIdentity while there is none."""
        material, made = self._material(), self._made
        if made is None or made[0] is not material:
            made = (material, tls.client_context(material, self._verify, on_refusal=self._told, alpn=self._alpn))
            self._made = made
        return made[1]

    def _verify(self, chain: Sequence[bytes]) -> X509Peer:
        return _peer(self._source, self._expect, chain)


class _Material:
    """The material of a source: the same object while nothing has changed."""

    def __init__(self, source: X509Material, extra_anchors: Callable[[], Sequence[bytes]]) -> None:
        self._source = source
        self._extra = extra_anchors
        self._kept: tuple[tuple[X509Svid, BundleSet, tuple[bytes, ...]], TlsMaterial] | None = None

    def __call__(self) -> TlsMaterial:
        now = (self._source.svid, self._source.bundles, tuple(self._extra()))
        kept = self._kept  # read once: blocking servers shake hands in several threads
        if kept is None or not _same(now, kept[0]):
            self._kept = kept = (now, TlsMaterial.of(*now))
        return kept[1]


def _same(
    one: tuple[X509Svid, BundleSet, tuple[bytes, ...]], other: tuple[X509Svid, BundleSet, tuple[bytes, ...]]
) -> bool:
    return one[0] is other[0] and one[1] is other[1] and one[2] == other[2]


def check_still(source: X509Material, peer: X509Peer, authorize: Authorize | None = None) -> None:
    """For each request or event of a connection that stays open: `peer` would be let in now as it was then.

    Raises:
        Untrusted: its certificate has expired, or its authority is not believed any more.
        Revoked: it was taken back.
        PeerUnwanted: `authorize` does not want it any more.
    """
    x509svid.check_still(peer, source.bundles, source.clock.now(), source.revocations)
    _check_wanted(authorize, peer)


def _peer(source: X509Material, authorize: Authorize | None, chain: Sequence[bytes]) -> X509Peer:
    peer = x509svid.verify(chain, source.bundles, source.clock.now(), source.revocations)
    _check_wanted(authorize, peer)
    return peer


def _check_wanted(authorize: Authorize | None, peer: X509Peer) -> None:
    wanted = authorize.matches if isinstance(authorize, IdPattern) else authorize
    if wanted is not None and not wanted(peer.id):
        raise PeerUnwanted(f"`{peer.id}` is not who is expected at the other end")


def _told(event: str, refused: Refused | None) -> Callable[[Problem], None]:
    def tell(problem: Problem) -> None:
        _log.warning(event, reason=str(problem), code=problem.code, peer=problem.details.get("peer"))
        if refused is not None:
            refused(problem)

    return tell
