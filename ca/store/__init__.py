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
from ca.store.issued import Issued, issued_to, leaf, leaves_of, leaves_under, record, signed_by
from ca.store.revoked import (
    StoredList,
    forget_finished,
    has_expired,
    is_revoked,
    keep,
    lists,
    newest,
    numbers,
    revoke,
    revoke_leaves_of,
    unlisted,
)
from ca.store.revoked import claim as claim_entries
from ca.store.revoked import count as count_revoked
from ca.store.servers import LIVE, behind, heard, is_live, others, take_name, who_has

__all__ = [
    "LIVE",
    "Anchor",
    "Issued",
    "Move",
    "State",
    "StoredAuthority",
    "StoredList",
    "add_anchor",
    "anchors",
    "behind",
    "claim",
    "claim_entries",
    "count_revoked",
    "everything",
    "fence",
    "force",
    "forget_finished",
    "forget_intent",
    "generation",
    "has_expired",
    "heard",
    "insert",
    "intend_key",
    "intended_keys",
    "is_live",
    "is_revoked",
    "issued_to",
    "keep",
    "key_destroyed",
    "keys_to_destroy",
    "leaf",
    "leaves_of",
    "leaves_under",
    "lists",
    "move",
    "newest",
    "numbers",
    "others",
    "raise_sequence",
    "record",
    "remove_anchor",
    "revoke",
    "revoke_leaves_of",
    "sequence",
    "signed_by",
    "take_name",
    "touch",
    "trusted",
    "unlisted",
    "who_has",
]
