"""MySQL and MariaDB: a user that is a role or a list of privileges, for as long as its lease lives.

    engine.py      the verbs
    principal.py   the texts of SQL: made, replaced, disabled, dropped
    verifiers.py   what is sent instead of passwords
    sessions.py    cut, also those still logging in
    ending.py      access ended and verified on every endpoint; nothing left
    claim.py       whose target this is
    accounts.py    passwords of accounts that are not ours
    check.py       what `doctor` and `target check` prove
    reach.py       connections, and what their failures mean

What a holder can leave behind: what its role lets it make (routines, events and views run as their definer, and stop
working when that one is dropped). A password it set for itself goes with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from broker.engines.mysql.settings import RoleSettings, Settings
from broker.engines.passwords import OwnPassword
from broker.engines.protocol import Lent
from ca.errors import Malformed

if TYPE_CHECKING:
    from broker.engines.mysql.engine import Mysql

__all__ = ["RoleSettings", "Settings", "open_engine"]


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Mysql]:
    """The engine of one target. Nothing is connected yet: a target that is down at start comes later.

    Raises:
        Malformed: the driver is not installed.
    """
    try:
        from broker.engines.mysql.engine import Mysql
        from broker.engines.mysql.reach import Reach
    except ModuleNotFoundError as error:
        raise Malformed(f"the engine `mysql` needs `{error.name}`: install `sojourn[mysql]`") from error

    clock, own = lent.clock, OwnPassword(settings.password.read)
    reaches = [Reach(endpoint, clock, settings.connections) for endpoint in settings.endpoints(own.read)]
    try:
        yield Mysql(settings, clock, own, reaches[0], reaches[1:])
    finally:
        for reach in reaches:
            reach.close()
        await clock.sleep(0)  # transports close in a turn of their own
