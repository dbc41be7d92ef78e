"""Tokens of service accounts, each bound to a Secret of its own that is removed to end it.

    anchor.py     the Secret a token is bound to
    token.py      TokenRequest, and what it answers
    claim.py      whose namespace it is
    settings.py   what an operator says

The API server takes a bound token only while what it is bound to is there, so removing the Secret ends it, at the API
and at whoever asks it by TokenReview. API servers remember for some seconds that a token was good: an ending is not
called done before that has passed. A token's own end is ten minutes away at least.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from broker.engines.kubernetes import claim, token
from broker.engines.kubernetes.anchor import Anchor, Anchors, object_name
from broker.engines.kubernetes.settings import SHORTEST, RoleSettings, Settings, role_settings
from broker.engines.protocol import AccessEnded, Claim, Finding, Issued, Lent, Making
from broker.errors import NotPossible, NotYet, OutcomeUnknown
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Conflict, Problem, Unavailable
from ca.runtime.clock import BOUND
from ca.runtime.kubernetes import Kubernetes

__all__ = ["KubernetesEngine", "RoleSettings", "Settings", "open_engine"]

_CALL = 10
"""Seconds a call may be under way before the token's life begins."""


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[KubernetesEngine]:
    """The engine of one namespace. Nothing is connected yet."""
    async with Kubernetes(settings.api) as api:
        yield KubernetesEngine(settings, lent, api)


class KubernetesEngine:
    """Tokens of one namespace."""

    kind = "kubernetes"
    making = Making.CREATE_ONLY

    def __init__(self, settings: Settings, lent: Lent, api: Kubernetes) -> None:
        self._settings, self._lent, self._api = settings, lent, api
        self._anchors = Anchors(api, settings.namespace)

    def plan(self, role: Role, name: str) -> Handle:
        """Whose token, and what it will be bound to."""
        facts = {"service_account": role_settings(role).service_account, "secret": object_name(name)}
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def guarantee(self, role: Role) -> Guarantee:
        """As soon as nobody remembers the token; without us, at its own end."""
        return Guarantee(
            new_access=NewAccess.AT_ONCE,
            new_access_within=2 + int(self._settings.remembered.total_seconds()),
            open_sessions=OpenSessions.SURVIVE,
            open_sessions_within=None,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=_CALL + int(max(role.ttl, SHORTEST).total_seconds()),
        )

    def end_is_fixed(self, handle: Handle) -> bool:  # noqa: ARG002 - of every token
        """Its end is written into it."""
        return True

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Take the name, then ask for a token that is bound to it."""
        said = role_settings(role)
        self._in_time(role, deadline)
        anchor = await self._anchors.make(handle.name)
        try:
            return await self._bound(handle, said, anchor, until)
        except Problem as problem:
            await self._undo(handle, anchor, problem)
            raise

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """The old one dies only with its name. Raises NotPossible."""
        raise NotPossible(f"a token of `{role.full_name}` can't be replaced under the same lease")

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002
        """Its end is written into it. Raises NotPossible."""
        raise NotPossible("the end of a token stands in it, and can't be moved")

    async def occupy(self, handle: Handle) -> None:
        """Take the name for nobody, or learn that it is taken: then what was made is there to be ended."""
        with suppress(Conflict):
            await self._anchors.make(handle.name, ended=True)

    async def end_access(self, handle: Handle) -> AccessEnded:
        """Remove what tokens are bound to, look, hold the name; done when nobody can remember them any more."""
        found = await self._anchors.find(handle.name)
        if found is None:
            return AccessEnded(sessions_cut=0, endpoints=1)
        now = self._lent.clock.now()
        if not found.ended or (found.ended_at or now) > now + BOUND:  # the clock may have been set back since
            await self._anchors.remove(handle.name, found)
            try:
                found = await self._anchors.make(handle.name, ended=True, ended_at=now)
            except Conflict as error:
                raise NotYet("another object took the name in between") from error
        if found.ended_at is not None and now < found.ended_at + self._settings.remembered:
            raise NotYet("what it was bound to is gone; API servers may remember the token for some seconds more")
        return AccessEnded(sessions_cut=0, endpoints=1)

    async def has_ended(self, handle: Handle) -> bool:
        """Whether no token is bound to what is there, remembered or not."""
        found = await self._anchors.find(handle.name)
        return found is None or found.ended

    async def clean_up(self, handle: Handle) -> None:
        """Give the name back."""
        found = await self._anchors.find(handle.name)
        if found is not None:
            await self._anchors.remove(handle.name, found)

    async def names(self, prefix: str) -> Sequence[str]:
        """The Secrets of ours, by their principals' names."""
        return await self._anchors.names(prefix)

    async def claim(self, installation: str, incarnation: str) -> Claim:
        """See `claim.py`."""
        return await claim.claim(self._api, self._settings.namespace, installation, incarnation)

    async def adopt(self, installation: str, incarnation: str) -> None:
        """See `claim.py`."""
        await claim.adopt(self._api, self._settings.namespace, installation, incarnation)

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """See `check.py`."""
        from broker.engines.kubernetes.check import Examination

        return await Examination(self, self._api, self._settings, self._lent).run(roles, prefix)

    async def _bound(self, handle: Handle, said: RoleSettings, anchor: Anchor, until: datetime) -> Issued:
        now = self._lent.clock.now()
        namespace = self._settings.namespace
        life = max(until - now, SHORTEST)
        wanted = token.Wanted(namespace=namespace, name=handle.name, anchor=anchor, said=said, life=life)
        given = await token.request(self._api, wanted, now)
        fields: dict[str, str | int] = {
            "namespace": namespace,
            "service_account": said.service_account,
            "expires_at": given.ends_at.isoformat(),
        }
        if self._settings.api.server is not None:
            fields["server"] = self._settings.api.server
        return Issued(fields=fields, secret={"token": given.value})

    async def _undo(self, handle: Handle, anchor: Anchor, problem: Problem) -> None:
        """A token nobody was given ends with its Secret. Raises OutcomeUnknown: the Secret may still be there."""
        try:
            await self._anchors.remove(handle.name, anchor)
        except Problem as error:
            raise OutcomeUnknown(f"no token was given ({problem}), and what it is bound to is still there") from error

    def _in_time(self, role: Role, deadline: datetime) -> None:
        if self._lent.clock.now() > deadline:
            raise Unavailable(f"the call for `{role.full_name}` came only after its deadline, and did nothing")
