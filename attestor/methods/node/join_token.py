"""Join tokens: `sj1.<id>.<secret>.<SHA-256 of the root's public key>` (traps 10).

The token proves two things. To the server it proves a node: the secret rests there only as a hash and is redeemed once.
To the node it proves the server: before a byte of the token is sent, the node has checked that the server's chain ends
in a root with exactly that key, so a man in the middle never sees a secret.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from attestor.conversation import Conversation
from attestor.errors import BadConversation, NotProven
from attestor.methods.node.protocol import Attested
from attestor.selector import Selector
from ca.errors import Malformed
from ca.runtime.secret import Secret

METHOD = "join_token"

_TOKEN = re.compile(r"sj1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})\.([0-9a-f]{64})")
_PROOF = re.compile(r"([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """One token; its secret is not in repr."""

    id: str
    secret: Secret
    root_key_hash: str

    @classmethod
    def new(cls, root_key_hash: str) -> Self:
        """A token nobody ever had, for servers under the root with that key."""
        return cls(secrets.token_hex(8), Secret(secrets.token_urlsafe(32)), root_key_hash)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token. Raises Malformed, which does not repeat it."""
        found = _TOKEN.fullmatch(text.strip())
        if not found:
            raise Malformed("this is not a join token: expected `sj1.<id>.<secret>.<hash of the root's public key>`")
        return cls(found[1], Secret(found[2]), found[3])

    def reveal(self) -> str:
        """The token as it is handed to an operator."""
        return f"sj1.{self.id}.{self.secret.reveal()}.{self.root_key_hash}"

    def secret_hash(self) -> str:
        """What the server keeps."""
        return secret_hash(self.secret)


def secret_hash(secret: Secret) -> str:
    """Of 256 random bits, so that a plain hash is enough."""
    return hashlib.sha256(b"sojourn join token\x00" + secret.reveal().encode()).hexdigest()


Redeem = Callable[[str, Secret], Awaitable[str]]
"""Id and secret -> the node's name; raises NotProven. Uses the token up."""


class Prover:
    """Sends the token's id and secret; its caller has checked the server's key before."""

    def __init__(self, token: JoinToken) -> None:
        self._token = token

    async def prove(self, conversation: Conversation) -> None:
        """One message."""
        await conversation.send(f"{self._token.id}.{self._token.secret.reveal()}".encode())


class Verifier:
    """Redeems what it hears."""

    def __init__(self, redeem: Redeem) -> None:
        self._redeem = redeem

    async def verify(self, conversation: Conversation) -> Attested:
        """One message, one redemption."""
        message = await conversation.receive()
        try:
            found = _PROOF.fullmatch(message.decode("ascii"))
        except UnicodeDecodeError:
            found = None
        if not found:
            raise BadConversation("a join token's proof must be its id and its secret")
        node = await self._redeem(found[1], Secret(found[2]))
        if not node:
            raise NotProven("the join token names no node")
        return Attested(
            node=node, selectors=frozenset({Selector("node", f"name:{node}"), Selector("node", f"method:{METHOD}")})
        )
