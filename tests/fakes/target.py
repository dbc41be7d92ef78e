"""A target in memory: real enough for the contract of engines, and failing on cue in both ways.

engine.fail("create")                     the next create: error, and nothing happened
engine.fail("create", after=True)         the next create: error, but it happened
gate = engine.hold("create")              the next create stops where it is until `gate.set()`
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from broker.engines.protocol import AccessEnded, Claim, Issued, Making
from broker.errors import NotPossible, OutcomeUnknown, TargetDown
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Conflict, NotFound, Problem, Unavailable
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret


@dataclass
class Session:
    """Somebody who logged in."""

    name: str
    open: bool = True

    async def answers(self) -> bool:
        return self.open


@dataclass
class Principal:
    """Somebody who may log in, while `enabled`."""

    password: str | None
    until: datetime
    enabled: bool = True


@dataclass
class FakeTarget:
    """The outside: what is there whatever the broker believes."""

    clock: Clock
    principals: dict[str, Principal] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    claim: Claim | None = None

    async def login(self, issued: Issued) -> Session | None:
        """A session, or None when it was refused."""
        name = str(issued.fields["username"])
        principal = self.principals.get(name)
        password = issued.secret["password"].reveal()
        if principal is None or not principal.enabled or principal.password != password:
            return None
        if self.clock.now() >= principal.until:
            return None
        self.sessions.append(Session(name))
        return self.sessions[-1]

    def open_sessions(self, name: str) -> int:
        return sum(session.open and session.name == name for session in self.sessions)


@dataclass
class _Cue:
    error: Problem
    after: bool


class FakeEngine:
    """The hands; see the module."""

    kind = "fake"
    fixed = False
    """Whether the end is written into its secrets."""

    def __init__(self, target: FakeTarget, *, revocable: bool = True, making: Making | None = None) -> None:
        self.target, self.revocable, self.making = target, revocable, making or MAKING[-1]
        self.calls: list[tuple[str, str]] = []
        self._cues: dict[str, list[_Cue]] = defaultdict(list)
        self._held: dict[str, list[tuple[asyncio.Event, asyncio.Event]]] = defaultdict(list)

    def fail(self, verb: str, *, after: bool = False, error: Problem | None = None, times: int = 1) -> None:
        """Let the next calls of `verb` fail, before or after they happened."""
        error = error or (OutcomeUnknown("no answer came") if after else TargetDown("nobody is there"))
        self._cues[verb] += [_Cue(error, after)] * times

    def hold(self, verb: str) -> tuple[asyncio.Event, asyncio.Event]:
        """(arrived, go): the next call of `verb` sets the first and waits for the second before it happens."""
        gate = (asyncio.Event(), asyncio.Event())
        self._held[verb].append(gate)
        return gate

    def plan(self, role: Role, name: str) -> Handle:
        return Handle(target=role.target, engine=self.kind, name=name, facts={"groups": ["readers"]})

    def end_is_fixed(self, handle: Handle) -> bool:
        return self.fixed

    async def authority(self) -> str:
        if not self.fixed:
            raise NotPossible("nothing is signed for this target")
        return "AUTHORITY\n"

    def guarantee(self, role: Role) -> Guarantee:
        return Guarantee(
            new_access=NewAccess.AT_ONCE if self.revocable else NewAccess.AT_EXPIRY,
            new_access_within=1,
            open_sessions=OpenSessions.CUT,
            open_sessions_within=1,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=int(role.ttl.total_seconds()),
        )

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        if self.making is Making.UPSERT:  # no target judges it: what left in time may arrive whenever it likes
            _refuse_late(self.target.clock.now(), deadline)
        cue = await self._arrive("create", handle.name)
        if self.making is Making.CREATE_ONLY:
            _refuse_late(self.target.clock.now(), deadline)
        if self.making is Making.UPSERT:
            self._cut(handle.name)
        elif handle.name in self.target.principals:
            raise Conflict("the target has a principal of that name already")
        password = secrets.token_hex(16)
        self.target.principals[handle.name] = Principal(password, until)
        self._leave(cue)
        return _issued(handle, password)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        cue = await self._arrive("replace", handle.name)
        if self.fixed:
            raise NotPossible("a secret with a fixed end is not replaced")
        if handle.name not in self.target.principals:
            raise NotFound("the target has no principal of that name")
        principal = self.target.principals[handle.name]
        principal.password, principal.until = secrets.token_hex(16), until
        self._cut(handle.name)
        self._leave(cue)
        return _issued(handle, principal.password)

    async def renew(self, handle: Handle, until: datetime) -> None:
        cue = await self._arrive("renew", handle.name)
        if handle.name not in self.target.principals:
            raise NotFound("the target has no principal of that name")
        self.target.principals[handle.name].until = until
        self._leave(cue)

    async def occupy(self, handle: Handle) -> None:
        cue = await self._arrive("occupy", handle.name)
        tombstone = Principal(None, self.target.clock.now(), enabled=False)
        self.target.principals.setdefault(handle.name, tombstone)
        self._leave(cue)

    async def end_access(self, handle: Handle) -> AccessEnded:
        cue = await self._arrive("end_access", handle.name)
        principal = self.target.principals.get(handle.name)
        if principal is not None:
            principal.enabled, principal.password = False, None
        cut = self._cut(handle.name)
        self._leave(cue)
        return AccessEnded(sessions_cut=cut, endpoints=1)

    async def clean_up(self, handle: Handle) -> None:
        cue = await self._arrive("clean_up", handle.name)
        self.target.principals.pop(handle.name, None)
        self._leave(cue)

    async def names(self, prefix: str) -> Sequence[str]:
        cue = await self._arrive("names", prefix)
        self._leave(cue)
        return sorted(name for name in self.target.principals if name.startswith(prefix))

    async def claim(self, installation: str, incarnation: str) -> Claim:
        cue = await self._arrive("claim", installation)
        if self.target.claim is None:
            self.target.claim = Claim(installation=installation, incarnation=incarnation)
        if self.target.claim.installation != installation:
            raise Conflict("this target is claimed by another installation")
        self._leave(cue)
        return self.target.claim

    async def adopt(self, installation: str, incarnation: str) -> None:
        await self.claim(installation, incarnation)
        self.target.claim = Claim(installation=installation, incarnation=incarnation)

    async def _arrive(self, verb: str, what: str) -> _Cue | None:
        self.calls.append((verb, what))
        if self._held[verb]:
            arrived, go = self._held[verb].pop(0)
            arrived.set()
            await go.wait()
        cue = self._cues[verb].pop(0) if self._cues[verb] else None
        if cue is not None and not cue.after:
            raise cue.error
        return cue

    def _leave(self, cue: _Cue | None) -> None:
        if cue is not None:
            raise cue.error

    def _cut(self, name: str) -> int:
        cut = 0
        for session in self.target.sessions:
            if session.name == name and session.open:
                session.open = False
                cut += 1
        return cut


class Unlisted(FakeEngine):
    """A target that can't tell which principals it has."""

    names = None  # type: ignore[assignment]


MAKING = [Making.CREATE_ONLY]
"""How a fake makes that is told nothing: changed by `in_both_ways` for the length of a test."""


@pytest.fixture(params=sorted(Making))
def in_both_ways(request: pytest.FixtureRequest) -> Iterator[Making]:
    """For whole files of tests: `pytestmark = pytest.mark.usefixtures("in_both_ways")`."""
    MAKING.append(request.param)
    yield request.param
    MAKING.pop()


def _refuse_late(now: datetime, deadline: datetime) -> None:
    if now > deadline:
        raise Unavailable("the target saw the call only after its deadline, and did nothing")


def _issued(handle: Handle, password: str) -> Issued:
    return Issued(fields={"username": handle.name}, secret={"password": Secret(password)})
