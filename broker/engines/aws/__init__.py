"""Sessions of roles in AWS, for as long as they were given.

    sts.py        the Security Token Service of one region
    signing.py    Signature Version 4, for keys of a user
    answers.py    what it may answer, read strictly
    settings.py   what an operator says

A session has no name that could be taken, and nothing takes it back: it ends at its own end, which AWS lets nobody set
nearer than fifteen minutes. So it lives longer than a shorter task, the guarantee says so, and its lease closes as
expired no earlier than that. One that is asked for and never arrives is known to nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from broker.engines.aws.answers import Session
from broker.engines.aws.settings import LONGEST, ON_THE_WAY, SHORTEST, RoleSettings, Settings, role_settings
from broker.engines.aws.sts import Sts
from broker.engines.protocol import AccessEnded, Finding, Issued, Lent, Making
from broker.errors import NotPossible
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Malformed, Unavailable

__all__ = ["Aws", "RoleSettings", "Settings", "open_engine"]


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Aws]:
    """The engine of one region. Nothing is connected yet."""
    async with Sts.open(settings, lent) as sts:
        yield Aws(settings, lent, sts)


class Aws:
    """Sessions of one region's STS."""

    kind = "aws"
    making = Making.UPSERT
    """Nothing has a name there; a session that comes late was given to nobody."""

    def __init__(self, settings: Settings, lent: Lent, sts: Sts) -> None:
        self._settings, self._lent, self._sts = settings, lent, sts

    def plan(self, role: Role, name: str) -> Handle:
        """The session's name, which AWS writes into every line of its own log."""
        if not name.isascii() or not name.replace("_", "").isalnum():
            raise Malformed("the name of a session has letters, digits and `_`")
        said = role_settings(role, self._settings)
        return Handle(target=role.target, engine=self.kind, name=name, facts={"role_arn": said.role_arn})

    def guarantee(self, role: Role) -> Guarantee:
        """At its own end, and not before; what was begun with it is its service's to end."""
        within = int(role.ttl.total_seconds())
        return Guarantee(
            new_access=NewAccess.AT_EXPIRY,
            new_access_within=within,
            open_sessions=OpenSessions.SURVIVE,
            open_sessions_within=None,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=within,
        )

    def end_is_fixed(self, handle: Handle) -> bool:  # noqa: ARG002 - of every session
        """Its end is written into it."""
        return True

    def shortest(self, handle: Handle) -> timedelta:  # noqa: ARG002 - of every session
        """AWS gives nothing shorter, whatever the task's deadline is."""
        return SHORTEST + ON_THE_WAY

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Ask for one that ends at `until` at the latest."""
        now, said = self._lent.clock.now(), role_settings(role, self._settings)
        if now > deadline:
            raise Unavailable(f"the call for `{role.full_name}` came only after its deadline, and did nothing")
        if until - now < SHORTEST:
            raise NotPossible("AWS gives no session that would end in time: fifteen minutes is the shortest")
        life = min(max(until - now - ON_THE_WAY / 2, SHORTEST), LONGEST)
        session = await self._sts.assume(said, handle.name, life)
        self._judge(session, said, handle.name, until)
        return self._issued(session)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """The first would live on. Raises NotPossible."""
        raise NotPossible(f"a session of `{role.full_name}` can't be taken back, so it can't be replaced: ask again")

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - refused whatever they are
        """Raises NotPossible."""
        raise NotPossible("the end of a session is AWS's own, and can't be moved: ask for another")

    async def occupy(self, handle: Handle) -> None:
        """Nothing has a name there; what comes late is known to nobody."""

    async def end_access(self, handle: Handle) -> AccessEnded:  # noqa: ARG002
        """Nothing to be done: it ends by itself, and the guarantee says when."""
        return AccessEnded(sessions_cut=0, endpoints=0)

    async def clean_up(self, handle: Handle) -> None:
        """Nothing rests."""

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """See `check.py`."""
        from broker.engines.aws.check import examine

        return await examine(self, self._sts, self._lent, roles, prefix)

    def _judge(self, session: Session, said: RoleSettings, name: str, until: datetime) -> None:
        """Another's session, or a longer one, is given to nobody; it ends by itself, unknown."""
        _, partition, _, _, account, resource = said.role_arn.split(":", 5)
        whose = f"arn:{partition}:sts::{account}:assumed-role/{resource.rpartition('/')[2]}/{name}"
        if session.arn != whose:
            raise Unavailable("STS gave a session of another role or under another name, and nobody was given it")
        if session.ends_at > until or session.ends_at <= self._lent.clock.now():
            raise Unavailable(
                "STS gave a session that ends later than it was asked to, or has ended: nobody was given it;"
                " look at the broker's clock"
            )

    def _issued(self, session: Session) -> Issued:
        fields: dict[str, str | int] = {
            "access_key_id": session.access_key,
            "region": self._settings.region,
            "expires_at": session.ends_at.isoformat(),
            "arn": session.arn,
        }
        return Issued(fields=fields, secret={"secret_access_key": session.secret_key, "session_token": session.token})
