"""How this node proves itself when it has no valid identity: by a join token, or by a method that can be repeated.

A join token names the server's root. Any other proof names nobody, so before a byte of it leaves this process the
server must be known some other way: by a trust bundle from the settings, or by the hash of its root's key. Without
either the node agent does not start: whoever answered first would be given the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from attestor.errors import NotProven
from attestor.methods.node import join_token
from attestor.methods.node.join_token import JoinToken
from attestor.methods.node.protocol import Prover
from attestor.node_agent import admission
from attestor.node_agent.admission import Address, key_hash
from attestor.node_agent.identity import NodeIdentity
from attestor.wire.trust_bundle import read_bundle
from ca.errors import Malformed, Unavailable
from ca.runtime.secret import Secret
from ca.spiffe.bundle import Bundle

Now = Callable[[], datetime]


class Joining(Protocol):
    """One way to be admitted."""

    async def join(self, address: Address, now: Now) -> NodeIdentity:
        """Prove this node. Raises NotProven, Malformed, Unavailable, Unreachable."""

    def disowns(self, identity: NodeIdentity) -> bool:
        """Whether a remembered identity is of another server than this way leads to."""


class ByToken:
    """A join token, read anew each time: an operator may have put another one there.

    One that was used or refused is not sent again: to the server, who shows a used token is a second machine.
    """

    def __init__(self, read: Callable[[], Secret] | None) -> None:
        self._read = read
        self._spent = ""

    async def join(self, address: Address, now: Now) -> NodeIdentity:
        """Use the token up."""
        if self._read is None:
            raise Unavailable("this node has no valid identity: give it a join token from `sojourn token create`")
        token = self._token()
        if token.id == self._spent:
            raise Unavailable("this node's join token is unknown, used or expired: put another one there")
        channel = address.pinned(token.root_key_hash, now)
        try:
            found = await admission.attest(address, channel, join_token.METHOD, lambda _: join_token.Prover(token))
        except NotProven:
            self._spent = token.id
            raise
        self._spent = token.id
        return found

    def disowns(self, identity: NodeIdentity) -> bool:
        """A token that was used and removed is no trouble while the identity is valid."""
        try:
            token = self._token() if self._read is not None else None
        except Malformed:
            return False
        return token is not None and token.root_key_hash not in _hashes(identity.bundle)

    def _token(self) -> JoinToken:
        assert self._read is not None
        return JoinToken.parse(self._read().reveal())


class ByMethod:
    """A proof that can be repeated: after an expiry or an eviction nobody has to bring anything.

    `make` gives the prover for the public key (a SubjectPublicKeyInfo) the certificate is asked for.
    """

    def __init__(
        self,
        method: str,
        make: Callable[[bytes], Prover],
        *,
        trust_bundle: Path | None,
        root_key_hash: str | None,
    ) -> None:
        if trust_bundle is None and root_key_hash is None:
            raise Malformed(f"to attest by `{method}` the server must be known: say `trust_bundle` or `root_key_hash`")
        self._method, self._make = method, make
        self._trust_bundle, self._root_key_hash = trust_bundle, root_key_hash

    async def join(self, address: Address, now: Now) -> NodeIdentity:
        """Prove it to the server the settings name."""
        if self._trust_bundle is not None:
            channel = address.vouched(read_bundle(self._trust_bundle, address.trust_domain), now)
        else:
            assert self._root_key_hash is not None
            channel = address.pinned(self._root_key_hash, now)
        return await admission.attest(address, channel, self._method, self._make)

    def disowns(self, identity: NodeIdentity) -> bool:
        """A bundle that lies here from the start does not follow when roots are replaced, so it disowns nothing."""
        return self._root_key_hash is not None and self._root_key_hash not in _hashes(identity.bundle)


def _hashes(bundle: Bundle) -> set[str]:
    return {key_hash(root) for root in bundle.x509_authorities}
