"""An account that is lent: a password nobody had before, and after it one that nobody was given.

    check-out    another password; whoever was in is cut; tried by a login; handed over
    check-in     the same, and given to nobody

A password that nobody was given needs no store: it is drawn, set and dropped, and the next check-out sets another. So
nothing of an account rests here, sealed or not, and a crash between any two steps is mended by taking them again: what
can still open the account is at most the password of the one lease that has it (law 4, C9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.engines.passwords import new_password
from broker.engines.protocol import AccessEnded, Finding, Issued, Rotating
from broker.errors import NotPossible, NotYet, OutcomeUnknown, TargetDown
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions
from ca.errors import NotFound, Problem
from ca.runtime.secret import Secret


def lent_account() -> Guarantee:
    """Ended at once and cut; while no broker runs nothing ends it."""
    return Guarantee(
        new_access=NewAccess.AT_ONCE,
        new_access_within=2,
        open_sessions=OpenSessions.CUT,
        open_sessions_within=2,
        if_down=IfDown.NOTHING_ENDS_IT,
        if_down_within=None,
    )


@dataclass(frozen=True, slots=True)
class Account:
    """One account at one other target."""

    at: Rotating
    target: str
    name: str

    async def check_out(self, fields: Mapping[str, str | int]) -> Issued:
        """Hand it over. A failure half-way is undone by `check_in`, and nobody was told anything.

        Raises:
            NotPossible, TargetDown: no such account, target or power; nothing was changed.
            OutcomeUnknown, NotYet: not handed over.
        """
        password = Secret(new_password())
        try:
            await self.at.change_password(self.name, password)
        except NotFound as error:
            raise NotPossible(f"can't lend `{self.name}` at `{self.target}`: {error}") from error
        try:
            await self._seen(password)
        except TargetDown as error:
            raise OutcomeUnknown(f"the password of `{self.name}` was changed, and then: {error}") from error
        return Issued(fields={**fields, "username": self.name}, secret={"password": password})

    async def check_in(self) -> AccessEnded:
        """Nobody can use what was handed over any more, and that was looked at.

        Raises:
            NotYet, TargetDown, OutcomeUnknown: not verified; to be repeated.
        """
        password = Secret(new_password())
        await self.at.change_password(self.name, password)
        return AccessEnded(sessions_cut=await self._seen(password), endpoints=1)

    async def _seen(self, password: Secret) -> int:
        """Nobody is inside who could set another password over it, and it is in force; only one is at a time.

        The login comes last: a session may change its own password until it is cut.
        """
        try:
            cut = await self.at.cut_sessions(self.name)
            opened = await self.at.opens(self.name, password)
        except NotPossible as error:  # the target's settings were read again meanwhile
            raise NotYet(f"the change of the password of `{self.name}` could not be looked at: {error}") from error
        if not opened:
            raise NotYet(f"the new password of `{self.name}` at `{self.target}` does not log in")
        return cut

    async def finding(self, role: str) -> Finding:
        """Whether its target answers and changes passwords; nothing is changed."""
        name = f"account of {role}"
        try:
            await self.at.opens(self.name, Secret(new_password()))
        except Problem as problem:
            fix = f"look at the target `{self.target}`: sojourn target check {self.target}"
            return Finding(name=name, well=False, detail=str(problem), fix=fix)
        return Finding(name=name, well=True, detail=f"`{self.name}` at `{self.target}` can be lent")
