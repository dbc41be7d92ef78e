"""Redis and Valkey: an ACL user with the rules of its role, for as long as its lease lives.

    engine.py      the verbs
    rules.py       what a role may say, and the rules made of it
    principal.py   what is sent to one node: made, replaced, ended, removed
    claim.py       whose node this is
    check.py       what `doctor` and `target check` prove
    reach.py       connections, and what their failures mean

Commands of one node run one after another, so a login is either before the end, and is listed, or after it, and is
refused: there is no login in flight. Users are each node's own and are not replicated: all of it is done on each.

What a holder can leave behind: what it wrote; functions, where its role lets it load them (they run as their caller).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from broker.engines.passwords import OwnPassword
from broker.engines.protocol import Lent
from broker.engines.redis.settings import RoleSettings, Settings
from ca.errors import Malformed

if TYPE_CHECKING:
    from broker.engines.redis.engine import Redis

__all__ = ["RoleSettings", "Settings", "open_engine"]


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Redis]:
    """The engine of one target. Nothing is connected yet: a target that is down at start comes later.

    Raises:
        Malformed: the driver is not installed.
    """
    try:
        from broker.engines.redis.engine import Redis
        from broker.engines.redis.reach import Reach
    except ModuleNotFoundError as error:
        raise Malformed(f"the engine `redis` needs `{error.name}`: install `sojourn[redis]`") from error

    own = OwnPassword(settings.password.read)
    nodes = [Reach(settings, address, own.read) for address in settings.addresses()]
    try:
        yield Redis(settings, lent.clock, own, nodes)
    finally:
        for node in nodes:
            await node.close()
        await lent.clock.sleep(0)  # transports close in a turn of their own
