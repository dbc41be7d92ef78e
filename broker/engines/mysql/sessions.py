"""Sessions of a user: cut, counted, none left, not even one that is still logging in.

A server copies what it knows of a user when it reads the user's name, and a client may keep it waiting between that and
its proof for as long as `connect_timeout`: it is then let in although the user was locked meanwhile (traps 5). MariaDB
lists such a login under the user's name; MySQL as `unauthenticated user`. So who is unauthenticated at the first look
after the lock is a *suspect*: it must show itself (as ours, and is cut; as somebody else, and is left alone) or be
gone; one that stays hidden for longer than `GRACE` is ended. Whoever comes later reads the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from asyncmy.errors import MySQLError

from broker.engines.mysql.reach import Connection, code_of
from broker.errors import NotYet
from ca.runtime.clock import Clock

GRACE = 1.0
"""Seconds an honest login may stay hidden; then it is ended, whoever it is."""

PATIENCE = 15.0
"""Seconds after which an ending is reported as not yet verified, to be tried again."""

_LIST = "SELECT id, user FROM information_schema.processlist WHERE id <> CONNECTION_ID()"
_SEES_ALL = "SELECT COUNT(*) FROM information_schema.innodb_cmp"
"""Refused to whoever lacks PROCESS, and would be shown its own sessions only: an empty list would prove nothing."""

_HIDDEN = "unauthenticated user"
_NO_SUCH_THREAD = 1094


@dataclass(slots=True)
class Cut:
    """One ending of all sessions of one user on one server, but those that are `spared`."""

    connection: Connection
    name: str
    clock: Clock
    spared: Callable[[], set[int]] = set
    cut: set[int] = field(default_factory=set)
    _suspects: set[int] | None = field(default=None)

    async def run(self) -> int:
        """Cut until two looks, one statement apart, see nothing; answers how many sessions were cut.

        Raises:
            NotYet: something is still there after `PATIENCE`.
            MySQLError: the server refuses, or we may not see the sessions of others.
        """
        await self.connection.run(_SEES_ALL)
        started, empty, pause = self.clock.boot(), 0, 0.001
        while empty < 2:
            ours, hidden = await self._look()
            waited = self.clock.boot() - started
            for number in sorted(ours | (hidden if waited >= GRACE else set())):
                await self._kill(number)
            if not ours and not hidden:
                empty += 1
                continue
            empty = 0
            if waited >= PATIENCE:
                raise NotYet(f"{len(ours | hidden)} sessions could not be ended yet")
            await self.clock.sleep(pause)
            pause = min(pause * 2, 0.05)
        return len(self.cut)

    async def _look(self) -> tuple[set[int], set[int]]:
        rows = await self.connection.run(_LIST)
        ours = {int(number) for number, user in rows if user == self.name} - self.spared()
        hidden = {int(number) for number, user in rows if user == _HIDDEN}
        self._suspects = hidden if self._suspects is None else self._suspects & hidden
        self.cut |= ours
        return ours, set(self._suspects)

    async def _kill(self, number: int) -> None:
        try:
            await self.connection.run(f"KILL {number:d}")
        except MySQLError as error:
            if code_of(error) != _NO_SUCH_THREAD:
                raise
