"""A target with accounts of its own, whose passwords can be changed: real enough for what is lent through it.

accounts.fail("change_password")                the next call: error, and nothing happened
accounts.fail("change_password", after=True)    the next call: error, but it happened
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import NotFound, Problem
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret
from fakes.target import FakeEngine, FakeTarget


@dataclass
class Login:
    """Somebody who is in."""

    accounts: FakeAccounts
    account: str
    open: bool = True

    async def answers(self) -> bool:
        return self.open

    def set_password(self, password: str) -> None:
        """What whoever is in may do to its own account."""
        assert self.open
        self.accounts.passwords[self.account] = password


@dataclass
class FakeAccounts(FakeEngine):
    """The engine and its target in one; `Rotating` besides what the fake can."""

    clock: Clock
    passwords: dict[str, str] = field(default_factory=lambda: {"legacy": "old-password", "root": "named"})
    logins: list[Login] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    cues: dict[str, list[tuple[Problem, bool]]] = field(default_factory=lambda: defaultdict(list))

    named: str = "named"
    ours: str = "named"

    def __post_init__(self) -> None:
        super().__init__(FakeTarget(self.clock))

    def fail(self, verb: str, *, after: bool = False, error: Problem | None = None, times: int = 1) -> None:
        error = error or (OutcomeUnknown("no answer came") if after else TargetDown("nobody is there"))
        self.cues[verb] += [(error, after)] * times

    def log_in(self, account: str, password: str) -> Login | None:
        """Knock."""
        if self.passwords.get(account) != password:
            return None
        self.logins.append(Login(self, account))
        return self.logins[-1]

    @property
    def account(self) -> str:
        return "root"

    def log_in_with(self, password: Secret | None) -> None:
        self.ours = self.named if password is None else password.reveal()

    async def change_password(self, account: str, password: Secret) -> None:
        if self.passwords["root"] != self.ours:
            raise TargetDown("the target lets us in no more")
        late = self._cue("change_password")
        if account not in self.passwords:
            raise NotFound("there is no such account")
        self.passwords[account] = password.reveal()
        self._late(late)

    async def opens(self, account: str, password: Secret) -> bool:
        self._late(self._cue("opens"))
        return self.passwords.get(account) == password.reveal()

    async def cut_sessions(self, account: str) -> int:
        late = self._cue("cut_sessions")
        inside = [login for login in self.logins if login.account == account and login.open]
        for login in inside:
            login.open = False
        self._late(late)
        return len(inside)

    def _cue(self, verb: str) -> Problem | None:
        self.done.append(verb)
        error, after = self.cues[verb].pop(0) if self.cues[verb] else (None, False)
        if error is not None and not after:
            raise error
        return error

    @staticmethod
    def _late(error: Problem | None) -> None:
        if error is not None:
            raise error
