"""What a method of node attestation must be.

Law: a verifier answers with what it *verified* and nothing else; whatever it is told and can't check is left out. It
either answers or raises; half a proof is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from attestor.conversation import Conversation
from attestor.selector import Selectors
from ca.errors import Malformed

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """A machine as verified: the last segment of its SPIFFE ID, and its selectors.

    A proof that could be copied and used again has a `token_id`: it is then good for one key and no other.
    """

    node: str
    selectors: Selectors
    token_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """One attestation: when, and for which key (a SubjectPublicKeyInfo) the certificate is asked for.

    A method that answers a challenge binds its answer to that key, so that nobody in between can use it for another.
    """

    now: datetime
    public_key: bytes


class Prover(Protocol):
    """The node agent's half."""

    async def prove(self, conversation: Conversation) -> None:
        """Say what is needed. Raises Malformed, NotProven."""


class Verifier(Protocol):
    """The server's half."""

    async def verify(self, conversation: Conversation) -> Attested:
        """Who is at the other end. Raises NotProven, BadConversation."""


def parse_node_name(text: str) -> str:
    """Read the name of a node: it is one segment of a SPIFFE ID. Raises Malformed."""
    if not _NAME.fullmatch(text):
        raise Malformed(
            "a node's name must be 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-` and begin and end with a letter or digit"
        )
    return text
