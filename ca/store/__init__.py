"""The authority's tables, one file per noun.

Every function takes a `Transaction` and is called inside a unit; no transaction begins here.
"""

from __future__ import annotations

from ca.store.anchors import Anchor, add_anchor, anchors, remove_anchor
from ca.store.authorities import (
    Move,
    State,
    StoredAuthority,
    everything,
    fence,
    force,
    forget_intent,
    insert,
    intend_key,
    intended_keys,
    key_destroyed,
    keys_to_destroy,
    move,
    trusted,
)
from ca.store.bundle import claim, generation, raise_sequence, sequence, touch
from ca.store.issued import Issued, issued_to, record
from ca.store.servers import LIVE, behind, heard, is_live, others

__all__ = [
    "LIVE",
    "Anchor",
    "Issued",
    "Move",
    "State",
    "StoredAuthority",
    "add_anchor",
    "anchors",
    "behind",
    "claim",
    "everything",
    "fence",
    "force",
    "forget_intent",
    "generation",
    "heard",
    "insert",
    "intend_key",
    "intended_keys",
    "is_live",
    "issued_to",
    "key_destroyed",
    "keys_to_destroy",
    "move",
    "others",
    "raise_sequence",
    "record",
    "remove_anchor",
    "sequence",
    "touch",
    "trusted",
]
