"""A platform's token is good for the first key it is shown with (traps 23).

It is a bearer token: whoever copied it could have an identity of its own for it. So the first key is remembered, and a
further one is taken only when the platform shows that something was started anew since: a container that restarted has
lost its key and still holds the same token, because the kubelet keeps a token for most of its life. It must have been
started after the newest key was bound: one that merely was not shown before is no evidence, and none serves twice. Both
are recorded; anything else is refused, and told as a risk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from attestor.errors import NotProven
from attestor.server.risks import Risk, Risks
from attestor.server.store import platform_tokens as store
from attestor.server.store.platform_tokens import BoundKey
from ca.runtime import log
from ca.runtime.database import Database, Transaction

_log = log.get(__name__)


class TokenKeys:
    """One for each server process."""

    def __init__(self, database: Database, risks: Risks) -> None:
        self._database, self._risks = database, risks

    async def bind(  # noqa: PLR0917 - each is a part of the one statement
        self,
        token: str,
        subject: str,
        public_key: bytes,
        parts: Mapping[str, datetime],
        expires_at: datetime,
        now: datetime,
    ) -> None:
        """Take `public_key` (a SubjectPublicKeyInfo) for the token called `token`. Raises NotProven, Unavailable."""
        key = BoundKey(key_hash=hashlib.sha256(public_key).hexdigest(), parts=frozenset(parts), bound_at=now)

        async def unit(tx: Transaction) -> int | None:
            await store.take(tx, token, subject, expires_at)
            known = await store.keys(tx, token)
            if any(one.key_hash == key.key_hash for one in known):
                return len(known)
            if known and not _started_since(known, parts):
                return None
            await store.add_key(tx, token, len(known) + 1, key)
            return len(known) + 1

        place = await self._database.write(unit)
        if place is None:
            detail = f"the token {token[:16]} was shown with the key {key.key_hash[:16]}, and belongs to another"
            await self._risks.note(Risk.SECOND_KEY, subject, detail, now)
            raise NotProven("this token was used with another key, and nothing was started anew since")
        if place > 1:
            _log.warning("a token serves a further key", subject=subject, keys=place)

    async def subject_of(self, token: str) -> str | None:
        """Whom the token was found to speak for, when it was good."""
        return await self._database.read(lambda tx: store.subject_of(tx, token))


def _started_since(known: Sequence[BoundKey], parts: Mapping[str, datetime]) -> bool:
    """Whether something runs that was in no earlier picture, and began after the newest of them."""
    seen = frozenset[str]().union(*(one.parts for one in known))
    newest = max(one.bound_at for one in known)
    return any(begun > newest for name, begun in parts.items() if name not in seen)
