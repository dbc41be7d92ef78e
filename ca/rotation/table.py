"""The life of an authority, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from ca.errors import Conflict
from ca.store import Move, State, StoredAuthority


class Event(StrEnum):
    """What can happen to an authority."""

    ACTIVATE = "activate"
    REPLACE = "replace"
    GIVE_UP = "give-up"  # its key is gone, or its root was replaced before it signed
    RETIRE = "retire"
    TAINT = "taint"
    REVOKE = "revoke"


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.PREPARED, Event.ACTIVATE): State.ACTIVE,
        (State.PREPARED, Event.GIVE_UP): State.OLD,
        (State.PREPARED, Event.TAINT): State.TAINTED,
        (State.ACTIVE, Event.REPLACE): State.OLD,
        (State.ACTIVE, Event.GIVE_UP): State.OLD,
        (State.OLD, Event.RETIRE): State.RETIRED,
        (State.OLD, Event.TAINT): State.TAINTED,
        (State.TAINTED, Event.REVOKE): State.REVOKED,
    }
)
"""The whole machine; what is not here can't happen."""

INITIAL = State.PREPARED


def step(authority: StoredAuthority, event: Event) -> Move:
    """The move `event` makes. Raises Conflict when the table has none."""
    after = TRANSITIONS.get((authority.state, event))
    if after is None:
        expected = "`, `".join(state for state, known in TRANSITIONS if known is event)
        raise Conflict(
            f"can't {event} the authority `{authority.key_id.hex()}`: it is `{authority.state}`, expected `{expected}`"
        )
    return Move(key_id=authority.key_id, before=authority.state, after=after)
