"""The identity of a task, `spiffe://<trust domain>/task/<id>`: a lease like any other, made at our attestor server.

Nothing is handed over. The process that opened the task finds the identity on the Workload API stream it already holds,
with the task's id as hint, and it is gone from there when the lease ends; what is held here is the right to take it
back. `end_access` returns when the server has withdrawn it and revoked its certificates in one transaction: node agents
drop it with the server's next word, whoever reads revocation lists refuses it with the next list. What nobody can call
back is short: a certificate lives five minutes, a token one (traps 21, 34).

An engine of our own parts: no operator configures it, and on a plain SPIRE there is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from attestor.wire.task_identity import LONGEST_LEAF, Grant, Granted
from broker.engines.protocol import AccessEnded, Issued, Lent, Making
from broker.errors import NotPossible, OutcomeUnknown, TargetDown
from broker.model.lease import IDENTITY, Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from broker.model.scope import Sensitivity
from ca.errors import Conflict, Malformed, NotFound, Unavailable

KIND = IDENTITY
TARGET = "svid"
"""The name of the one target of this kind; no operator's target may have it."""
UNCONFIRMED = timedelta(seconds=60)
"""For how long the server renews what we have not confirmed: its `confirm_grace`, unless somebody changed that."""


class Identities(Protocol):
    """The part of an attestor server that this engine works with (`attestor.client.task_identities`)."""

    @property
    def connected(self) -> bool:
        """Whether it is there."""

    async def grant(self, grant: Grant) -> Granted:
        """Ask for one."""

    async def withdraw(self, name: str, *, close: bool = False) -> int:
        """End one, or take its name."""

    async def names(self, prefix: str) -> Sequence[str]:
        """Those that are not closed."""

    async def confirm(self, names: Iterable[str]) -> Sequence[str]:
        """Their tasks live; answers those that are closed or not known."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Made by the broker's process, never read from a file."""

    identities: Identities
    kind: str = KIND


def task_role(task: str, instance: str) -> Role:
    """The role under which the identity of a task is asked for; nobody can ask for it by name."""
    return Role(
        target=TARGET,
        name="task",
        engine=KIND,
        sensitivity=Sensitivity.PUBLIC,
        ttl=UNCONFIRMED + LONGEST_LEAF,
        longest=timedelta.max,
        ack_within=timedelta(0),
        description="the task's own identity",
        settings={"task": task, "instance": instance},
    )


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Svid]:  # noqa: ARG001 - as all of them
    """The engine over a link that somebody else holds."""
    yield Svid(settings.identities)


class Svid:
    """Identities of tasks at one attestor server."""

    kind = KIND
    making = Making.CREATE_ONLY

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    @property
    def connected(self) -> bool:
        """Whether the server is there to be asked."""
        return self._identities.connected

    def plan(self, role: Role, name: str) -> Handle:
        """Which task's, and for which instance."""
        facts = {key: role.settings.get(key) for key in ("task", "instance")}
        if not all(isinstance(value, str) and value for value in facts.values()):
            raise Malformed(f"the role `{role.full_name}` needs the `task` and the `instance` an identity is for")
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def guarantee(self, role: Role) -> Guarantee:
        """Believed at most until its last certificate expires; what peers opened with it is theirs to end."""
        return Guarantee(
            new_access=NewAccess.AT_ONCE,
            new_access_within=int(LONGEST_LEAF.total_seconds()),
            open_sessions=OpenSessions.SURVIVE,
            open_sessions_within=None,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=int(role.ttl.total_seconds()),
        )

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Ask for it; nothing is sent while the link is down."""
        if not self.connected:
            raise TargetDown("the attestor server is not there to be asked for the identity of a task")
        grant = Grant(
            name=handle.name,
            task=str(handle.facts["task"]),
            instance=str(handle.facts["instance"]),
            ends_at=until,
            grant_by=deadline,
        )
        with _known():
            granted = await self._identities.grant(grant)
        if not granted.made:
            raise Conflict("the attestor server has an identity under this name already")
        return Issued(fields={"spiffe_id": str(granted.id)}, secret={})

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """There is no secret to replace: certificates are renewed by the node agent. Raises NotPossible."""
        raise NotPossible("the identity of a task has no secret that could be replaced")

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - a task's end is never moved ahead
        """Say that the task lives."""
        with _known():
            unknown = await self._identities.confirm([handle.name])
        if unknown:
            raise NotFound("the attestor server has no such identity")

    async def confirm(self, names: Sequence[str]) -> None:
        """The same of many at once; what is missing is found by the sweep. Raises OutcomeUnknown."""
        with _known():
            await self._identities.confirm(names)

    async def occupy(self, handle: Handle) -> None:
        """Withdrawn, it is either gone or was never there, and can't come any more."""
        with _known():
            await self._identities.withdraw(handle.name)

    async def end_access(self, handle: Handle) -> AccessEnded:
        """The server answers after the commit that withdrew it with every certificate of it."""
        with _known():
            leaves = await self._identities.withdraw(handle.name)
        return AccessEnded(sessions_cut=leaves, endpoints=1)

    async def clean_up(self, handle: Handle) -> None:
        """The name stays taken, and is listed no more."""
        with _known():
            await self._identities.withdraw(handle.name, close=True)

    async def names(self, prefix: str) -> Sequence[str]:
        """Every one of ours, in force or withdrawn."""
        try:
            return await self._identities.names(prefix)
        except Unavailable as error:
            raise TargetDown(f"the attestor server can't list the identities of tasks: {error}") from error


@contextmanager
def _known() -> Iterator[None]:
    """Whoever did not answer may have heard."""
    try:
        yield
    except Unavailable as error:
        raise OutcomeUnknown(f"it is not known whether the attestor server heard of it: {error}") from error
