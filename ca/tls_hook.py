"""Connections that carry nothing before a hook has judged the peer: asyncio's, and blocking ones."""

from __future__ import annotations

import _ssl
import errno
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeAlias

from ca.errors import Malformed, Problem, Unauthenticated
from ca.spiffe import der, leaf
from ca.tls_reasons import hint_of, reason_of

ChainVerifier: TypeAlias = Callable[[Sequence[bytes]], object]
"""The peer's chain in DER, its leaf first -> who that is; raises a Problem to refuse. A server that only asks for a
certificate does not call it for a client without one."""

OnRefusal: TypeAlias = Callable[[Problem], None]
"""Told of each refused handshake: the reason is its text, `details["peer"]` what the peer claimed to be."""


class HandshakeRefused(Unauthenticated):
    """OpenSSL refused the peer before its chain could be judged."""

    code = "handshake-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Judges one finished handshake."""

    verify: ChainVerifier
    on_refusal: OnRefusal
    needs_chain: bool

    def judge(self, connection: ssl.SSLObject | ssl.SSLSocket) -> object | None:
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

    def failed(self, error: ssl.SSLError) -> HandshakeRefused:
        """OpenSSL refused by itself."""
        problem = HandshakeRefused(f"the TLS handshake failed: {reason_of(error)}", peer="unknown")
        self.on_refusal(problem)
        return problem


class Connection(ssl.SSLObject):
    """A connection that is not open before its peer is known."""

    peer: object | None = None
    known = False

    def do_handshake(self) -> None:
        """Go on with the handshake; when TLS is through, let the hook judge."""
        self.peer = _judged(self, super().do_handshake)
        self.known = True

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002  # as the library calls it
        """As any connection; an alert of the other end comes with what to look at."""
        _check_known(known=self.known)
        try:
            return super().read(len, buffer)
        except ssl.SSLError as error:
            if hint_of(error) is not None:
                raise error from _refused_us(error)
            raise

    def write(self, data: Any) -> int:
        """As any connection."""
        _check_known(known=self.known)
        return super().write(data)


class BlockingConnection(ssl.SSLSocket):
    """The same for a blocking socket.

    The library would shake hands by itself at the first read or write, and send in the clear after `shutdown`; this one
    does neither.
    """

    peer: object | None = None
    known = False

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # as the library calls it
        """Shake hands; when TLS is through, let the hook judge."""
        self.peer = _judged(self, lambda: super(BlockingConnection, self).do_handshake(block))
        self.known = True


def _judged(connection: ssl.SSLObject | ssl.SSLSocket, handshake: Callable[[], None]) -> object | None:
    hook = _hook_of(connection.context)
    try:
        handshake()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise
    except ssl.SSLError as error:
        raise error from hook.failed(error)
    return _hook_of(connection.context).judge(connection)


def _check_known(*, known: bool) -> None:
    if not known:
        raise RuntimeError("a connection carries nothing before its handshake said who is at the other end")


def _refused_us(error: ssl.SSLError) -> HandshakeRefused:
    return HandshakeRefused(f"the other end ended the connection: {reason_of(error)}")


def _only_when_known(name: str) -> Callable[..., Any]:
    """The method `name` of a socket, for a connection whose peer is known and that is still one of TLS."""
    method = getattr(ssl.SSLSocket, name)

    @wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if self._sslobj is None:
            raise OSError(errno.ENOTCONN, "no TLS here, or no more, and nothing travels in the clear")
        _check_known(known=self.known)
        try:
            return method(self, *arguments, **named)
        except ssl.SSLError as error:
            if error.__cause__ is None and hint_of(error) is not None:
                raise error from _refused_us(error)
            raise

    return call


for _name in (
    "read",
    "write",
    "send",
    "sendall",
    "sendto",
    "sendfile",
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
):
    setattr(BlockingConnection, _name, _only_when_known(_name))


class HookedContext(ssl.SSLContext):
    """A context that carries its hook to the connections made from it."""

    hook: Hook


def peer_of(ssl_object: object) -> Any | None:
    """What the verifier answered for this connection; None for a client that came without a certificate.

    `ssl_object` is `transport.get_extra_info("ssl_object")`, or a blocking socket; one that passed no hook of ours has
    no peer.
    """
    return ssl_object.peer if isinstance(ssl_object, Connection | BlockingConnection) else None


def _hook_of(context: ssl.SSLContext) -> Hook:
    if not isinstance(context, HookedContext):
        raise RuntimeError("a connection was moved to a TLS context without a check of the peer")  # noqa: TRY004
    return context.hook


def _shown_chain(connection: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """The chain as the peer sent it, its leaf first, nothing of it verified by us yet."""
    shown = connection.getpeercert(binary_form=True)
    if shown is None:
        return []
    if sys.version_info >= (3, 13):
        return list(connection.get_unverified_chain())
    low: Any = getattr(connection, "_sslobj")  # noqa: B009  # public from 3.13 on
    rest = [each.public_bytes(_ssl.ENCODING_DER) for each in low.get_unverified_chain() or ()]
    return rest if rest[:1] == [shown] else [shown, *rest]  # a server's OpenSSL leaves the leaf out


def _claimed(chain: Sequence[bytes]) -> str:
    if not chain:
        return "no certificate"
    try:
        return leaf.claimed_id(der.certificate(chain[0], "the peer's chain"))
    except Malformed:
        return "an unreadable certificate"
