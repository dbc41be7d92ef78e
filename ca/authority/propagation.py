"""When a new authority may sign: once peers have been told of it, by every server that tells any.

The question is answered inside the transaction that activates it, which holds the bundle's row: of two servers that
begin at the same time in an empty store one is the first, and the other waits.
"""

from __future__ import annotations

from datetime import datetime

from ca import store
from ca.authority.ring import Ring
from ca.profiles.prepared import Kind
from ca.runtime.database import Transaction
from ca.store import StoredAuthority


async def may_sign(tx: Transaction, ring: Ring, authority: StoredAuthority, now: datetime) -> bool:
    """Whether the prepared `authority` of this server may begin at `now`.

    An issuing authority travels in the chains it signs, and its root was told before that root was active. A server
    that is alone and has nothing that signs begins at once: nobody could be told by anybody meanwhile.
    """
    if authority.kind is Kind.ISSUING and ring.get(authority.issuer_key_id or b"") is not None:
        return True
    settings = ring.settings
    # What an issuing authority stands on may be a root kept elsewhere: then a first root of our own is not alone.
    active = ring.active(Kind.ISSUING if authority.kind is Kind.ROOT else authority.kind)
    if (active is None or active.not_after <= now) and not await store.others(tx, settings.server):
        return True
    told = now - authority.published_at
    if told < settings.wait:
        return False
    return told >= settings.longest_wait or not await store.behind(tx, authority, now, settings.wait)
