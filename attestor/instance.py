"""Instances: one attested process, container, pod or unit (traps 3).

A leaf is replaced many times while its process runs, and a serial is unique only per issuer; so what a task is bound to
is the *instance*: 128 random bits made by the node agent before the first leaf, carried in every leaf of that process,
and never given to another.
"""

from __future__ import annotations

import re
import secrets
from enum import StrEnum

from ca.errors import Malformed

_ID = re.compile(r"[0-9a-f]{32}")


def new_id() -> str:
    """An id nobody ever had."""
    return secrets.token_hex(16)


def parse_id(text: str) -> str:
    """Read an instance id. Raises Malformed."""
    if not _ID.fullmatch(text):
        raise Malformed("an instance id must be 32 lower-case hex digits")
    return text


class Strength(StrEnum):
    """How much an attestation is worth; they compare by rank, weakest first, not by spelling (traps 9, 37)."""

    WEAK_PEER = "weak-peer"
    SHARED_UID = "shared-uid"
    OWN_UID = "own-uid"
    CONTAINER = "container"
    POD = "pod"
    TPM = "tpm"

    @classmethod
    def parse(cls, text: str) -> Strength:
        """Read one. Raises Malformed."""
        try:
            return cls(text)
        except ValueError as error:
            raise Malformed(f"a strength must be one of {', '.join(f'`{one}`' for one in cls)}") from error

    @property
    def rank(self) -> int:
        """Its place, 0 for the weakest."""
        return list(Strength).index(self)

    def at_least(self, other: Strength) -> bool:
        """Whether it is worth as much as `other`."""
        return self.rank >= other.rank

    def __lt__(self, other: str) -> bool:
        return self.rank < Strength(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Strength(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Strength(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Strength(other).rank


class Binding(StrEnum):
    """What must end for an identity to be revoked; `none` lets a leaf live out its short life (traps 4)."""

    NONE = "none"
    PROCESS = "process"
    CONTAINER = "container"
    POD = "pod"
    UNIT = "unit"

    @classmethod
    def parse(cls, text: str) -> Binding:
        """Read one. Raises Malformed."""
        try:
            return cls(text)
        except ValueError as error:
            raise Malformed(f"`bind` must be one of {', '.join(f'`{one}`' for one in cls)}") from error


class State(StrEnum):
    """What is known of an instance; `ended` is final."""

    LIVE = "live"
    UNOBSERVED = "unobserved"
    ENDED = "ended"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, text: str) -> State:
        """Read one. Raises Malformed."""
        try:
            return cls(text)
        except ValueError as error:
            raise Malformed(f"an instance's state must be one of {', '.join(f'`{one}`' for one in cls)}") from error
