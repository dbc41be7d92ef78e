"""The power of one target's engine to change passwords, lent to another engine: engines don't know one another.

Calls go through the target they are for, with its limits and its breaker, as endings: what must be given back is not
held up by a flood of grants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.engines.protocol import Engine, OwnAccount, Rotating
from broker.errors import NotPossible
from broker.targets.target import Target
from ca.errors import NotFound
from ca.runtime import failpoint
from ca.runtime.secret import Secret


@dataclass(frozen=True, slots=True)
class Borrowed:
    """`Rotating` at the target `name`, looked up anew at each call: its settings may have been read again."""

    engines: Mapping[str, Engine]
    targets: Mapping[str, Target]
    name: str

    async def change_password(self, account: str, password: Secret) -> None:
        """See `Rotating`."""
        engine, calls = self._at()
        if isinstance(engine, OwnAccount) and account == engine.account:
            raise NotPossible(f"`{account}` is who the broker itself logs in as at `{self.name}`, it is not lent")
        failpoint.reach("borrowed.change_password.before")
        await calls.call(engine.change_password(account, password), ending=True)
        failpoint.reach("borrowed.change_password.after")

    async def opens(self, account: str, password: Secret) -> bool:
        """See `Rotating`."""
        engine, calls = self._at()
        failpoint.reach("borrowed.opens.before")
        opened = await calls.call(engine.opens(account, password), ending=True)
        failpoint.reach("borrowed.opens.after")
        return opened

    async def cut_sessions(self, account: str) -> int:
        """See `Rotating`."""
        engine, calls = self._at()
        failpoint.reach("borrowed.cut_sessions.before")
        cut = await calls.call(engine.cut_sessions(account), ending=True)
        failpoint.reach("borrowed.cut_sessions.after")
        return cut

    def _at(self) -> tuple[Rotating, Target]:
        engine, calls = self.engines.get(self.name), self.targets.get(self.name)
        if engine is None or calls is None:
            raise NotFound(f"there is no target `{self.name[:60]}` whose passwords could be changed")
        if not isinstance(engine, Rotating):
            raise NotPossible(f"the target `{self.name}` is of the kind `{engine.kind}`, which changes no passwords")
        return engine, calls
