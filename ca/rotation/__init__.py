"""The life of an authority, as a table, and the reconciler that moves each one along it.

    prepared ─▶ active ─▶ old ─▶ retired          by itself
        │                  │
        └──────────────────┴─▶ tainted ─▶ revoked  by an operator's word

An authority is prepared at half of its predecessor's life and told to peers at once; it signs when a sixth is left, so
peers have had a third of a life to hear of it. An operator may have it sign sooner, and a server that comes to a trust
domain has no predecessor: then it waits as `ca.authority.propagation` says. An old one stays in the bundle until
everything it signed has expired.

Each server moves its own authorities. Those of a server that is gone for good are retired when they have expired.

Tainted means: compromised, signs nothing, and what it signed is being replaced while peers still believe it. Revoked
means: peers are told to believe it no longer. An issuing authority is believed because of its root, so it can only be
revoked together with that root.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ca.authority import Authority, AuthoritySettings, Ring
from ca.authority.upstream import Upstream
from ca.errors import Unavailable
from ca.keys.protocol import KeyStore
from ca.rotation.reconcile import ABANDONED, GRACE, Rotation
from ca.rotation.table import INITIAL, TRANSITIONS, Event, step
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.database import Database, migrate

__all__ = [
    "ABANDONED",
    "GRACE",
    "INITIAL",
    "MIGRATIONS",
    "TRANSITIONS",
    "Event",
    "Rotation",
    "open_authority",
    "step",
]

_log = log.get(__name__)

MIGRATIONS = Path(__file__).parents[1] / "migrations"


@asynccontextmanager
async def open_authority(
    settings: AuthoritySettings,
    database: Database,
    key_store: KeyStore,
    clock: Clock,
    upstream: Upstream | None = None,
) -> AsyncIterator[Authority]:
    """An authority that can sign: the tables are there, the keys are loaded, and the first tick is done.

    Whoever opens it goes on ticking: `background("rotation", Rotation(authority).tick, ...)`.

    Raises:
        Conflict: the store is another trust domain's.
        KeyLost, KeyUnusable: a key that must be there is not, or is not the one it was.
        Unavailable: nothing signs, and what could be made to does not answer.
    """
    await migrate(database, "ca", MIGRATIONS)
    authority = Authority(await Ring.load(settings, database, key_store, upstream), clock)
    try:
        await Rotation(authority).tick(clock.now())
    except Unavailable as error:  # a root kept elsewhere that is away keeps nobody from what is there
        if not authority.signs(clock.now()):
            raise
        _log.warning("not everything was done that is due", error=error)
    yield authority
