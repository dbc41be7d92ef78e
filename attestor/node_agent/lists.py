"""The revocation lists the server pushed: which held leaves they name, and which lists streams are shown.

A leaf that is named is replaced at once, so what is named is known as soon as the server has said it. A stream that
asked for lists gets its whole state again with each new one (WL-4), and ten thousand streams times hundreds of
kilobytes is more than a machine has: what streams are shown changes at most every `QUIET` (traps 4), but for the first
list of a new authority, which is empty and which some verifiers can't do without.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attestor.node_agent.held import Leaf
from attestor.node_agent.upstream import Issuer
from ca.errors import Malformed
from ca.runtime import log
from ca.spiffe.revocation_list import RevocationList, RevocationLists

QUIET = timedelta(seconds=3)
"""Between two changes of what streams are shown."""

_log = log.get(__name__)


class Lists:
    """What `issuer` has of them; `look` is called with each tick."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._newest: tuple[bytes, ...] = ()
        self._read: dict[bytes, RevocationList] = {}
        self._named: frozenset[tuple[bytes, int]] = frozenset()
        self._shown_at: datetime | None = None
        self._shown_issuers: set[bytes] = set()
        self._verified_by: RevocationLists | None = None
        self.shown: tuple[bytes, ...] = ()

    def look(self, now: datetime) -> bool:
        """Take over what is new; whether streams that want lists have something new to be told."""
        self._take()
        fresh = tuple(der for der in self._newest if der in self._read)
        quiet = self._shown_at is not None and now < self._shown_at + QUIET
        if fresh == self.shown or (quiet and not self._is_first_of_an_issuer(fresh)):
            return False
        self.shown, self._shown_at = fresh, now
        self._shown_issuers = {self._read[der].issuer_key_id for der in fresh}
        return True

    def _is_first_of_an_issuer(self, fresh: tuple[bytes, ...]) -> bool:
        """Who wants a list of each authority refuses whatever a new one signs until its list is there (traps 15)."""
        issuers = {self._read[der].issuer_key_id for der in fresh}
        return bool(issuers - self._shown_issuers)

    def name(self, leaf: Leaf) -> bool:
        """Whether the list of its issuer takes `leaf` back."""
        self._take()
        return (leaf.authority, leaf.serial) in self._named

    @property
    def revocations(self) -> RevocationLists:
        """What a verifier on this machine is given."""
        self._take()
        if self._verified_by is None:
            self._verified_by = RevocationLists(self._read.values())
        return self._verified_by

    def _take(self) -> None:
        newest = self._issuer.revocation_lists
        if newest is self._newest:
            return
        self._newest, self._read = newest, {der: one for der in newest if (one := self._parsed(der)) is not None}
        self._verified_by = None
        self._named = frozenset((one.issuer_key_id, serial) for one in self._read.values() for serial in one.serials)

    def _parsed(self, der: bytes) -> RevocationList | None:
        try:
            return self._read.get(der) or RevocationList.parse(der)
        except Malformed as error:
            _log.error("the server pushed a revocation list that is none", error=error)
            return None
