"""What a platform's token must prove to be worth an identity without a node agent.

Law: as for nodes, an answer holds what was *verified* and nothing else. A token is a bearer token, so it never stands
in a repr, an error or the store; `token_id` names it by a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from attestor.instance import Strength
from attestor.selector import Selectors
from ca.errors import NotFound, Problem

LONGEST_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """Whom a token speaks for.

    `subject` names the one pod or job in the words of `Platform.is_gone`, `selectors` say what is known of it, and
    `place` what is known of where it runs: rules name that under `nodes:`. `parts` names what runs in it
    now, and when each was started. Nothing given for the token outlives `expires_at`.
    """

    subject: str
    selectors: Selectors
    place: Selectors
    token_id: str
    expires_at: datetime
    strength: Strength
    parts: Mapping[str, datetime] = field(default_factory=dict)


Count = Callable[[str, str], object]
"""Told what a platform was asked about, and whether it `answered`, `refused` us or `failed`."""


def uncounted(what: str, outcome: str) -> None:
    """Nobody counts."""


@contextmanager
def counted(count: Count, what: str) -> Iterator[None]:
    """Count one question; that there is no such thing is an answer too."""
    try:
        yield
    except Problem as problem:
        count(what, "answered" if isinstance(problem, NotFound) else "failed" if problem.retryable else "refused")
        raise
    count(what, "answered")


class Platform(Protocol):
    """One kind of token."""

    async def verify(self, token: str, now: datetime) -> Proven:
        """Whom it speaks for. Raises NotProven, Malformed, Unavailable."""

    def seems_gone(self, subject: str) -> bool:
        """Whether it is worth asking `is_gone`: a watch no longer shows `subject`. Cheap, and proves nothing."""

    async def is_gone(self, subject: str) -> bool:
        """Whether the platform itself says that `subject` has ended. Raises Unavailable."""


def token_id(token: str) -> str:
    """A name for a token that gives nothing of it away."""
    return hashlib.sha256(b"sojourn platform token\x00" + token.encode()).hexdigest()


def short(value: Any) -> str:
    """Something a stranger said, for a sentence."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")
