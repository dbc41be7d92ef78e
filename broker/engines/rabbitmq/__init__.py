"""RabbitMQ: a user of its own for each lease, over the management API.

    principal.py   made, with its permissions last; found, listed
    ending.py      shut, connections closed and looked for; then nothing left
    claim.py       whose target this is
    check.py       what `doctor` and `target check` prove
    knock.py       just enough AMQP to prove a login
    reach.py       requests, and what their failures mean

The server knows no create-only verb and no expiry: a create is an upsert whose every request is preceded by a look at
the deadline, and nothing but us ends what was made. What a holder can leave behind: queues, exchanges, bindings and
messages, as far as its patterns allow. A connection that authenticated with a secret that is replaced in the same
moment, and opens its virtual host only afterwards, is let in: RabbitMQ reads permissions then, but no password; the
server's `handshake_timeout` (10 s) bounds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from urllib.parse import quote

from broker.engines.passwords import new_password
from broker.engines.protocol import AccessEnded, Claim, Finding, Issued, Lent, Making
from broker.engines.rabbitmq import ending, principal
from broker.engines.rabbitmq.check import Examination
from broker.engines.rabbitmq.claim import adopt, claim
from broker.engines.rabbitmq.knock import knocking
from broker.engines.rabbitmq.reach import Reach, open_reach
from broker.engines.rabbitmq.settings import RoleSettings, Settings, role_settings
from broker.errors import OutcomeUnknown, TargetDown
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Malformed, NotFound, Unavailable
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

__all__ = ["RabbitMQ", "RoleSettings", "Settings", "open_engine"]


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[RabbitMQ]:
    """The engine of one target. Nothing is connected yet: a target that is down at start comes later."""
    async with open_reach(settings) as reach:
        yield RabbitMQ(settings, lent.clock, reach)


class RabbitMQ:
    """One RabbitMQ, alone or a cluster."""

    kind = "rabbitmq"
    making = Making.UPSERT

    def __init__(self, settings: Settings, clock: Clock, reach: Reach) -> None:
        self._settings, self._clock, self._reach = settings, clock, reach

    def plan(self, role: Role, name: str) -> Handle:
        """Name and virtual hosts; the same whoever computes it."""
        if not name.isascii() or not name.replace("_", "").isalnum():
            raise Malformed("the name of a principal has letters, digits and `_`")
        facts = {"vhosts": [right.vhost for right in role_settings(role).permissions]}
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def guarantee(self, role: Role) -> Guarantee:  # noqa: ARG002 - the same for each
        """New logins end at once and connections are closed; without us nothing ends."""
        return Guarantee(
            new_access=NewAccess.AT_ONCE,
            new_access_within=1,
            open_sessions=OpenSessions.CUT,
            open_sessions_within=2,
            if_down=IfDown.NOTHING_ENDS_IT,
            if_down_within=None,
        )

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """A user that can do nothing, then its limits, then what it may do; a name that was taken is made anew.

        Once the user was made, no silence means that nothing was sent.
        """

        def in_time() -> None:
            if self._clock.now() > deadline:
                raise Unavailable("the call came to be sent only after its deadline, and was given up")

        chosen, password = role_settings(role), new_password()
        in_time()
        is_new = await principal.put_user(self._reach, handle.name, password)
        try:
            if not is_new:
                await ending.cut(self._reach, self._clock, handle.name)
            await principal.furnish(self._reach, handle.name, chosen, in_time)
        except TargetDown as error:
            raise OutcomeUnknown(f"the user was made, and then: {error}") from error
        return self._issued(handle, chosen, password)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Another password over the old one, then whoever the old one let in is cut. No permission is given anew."""
        if self._clock.now() > deadline:
            raise Unavailable("the call came to be sent only after its deadline, and was given up")
        await self._must_be_there(handle)
        password = new_password()
        await principal.put_user(self._reach, handle.name, password)
        await ending.cut(self._reach, self._clock, handle.name)
        return self._issued(handle, role_settings(role), password)

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - nothing at the target ends it
        """Look whether it is there still."""
        await self._must_be_there(handle)

    async def occupy(self, handle: Handle) -> None:
        """No name can be taken for good; one nothing opens stands there, or what an earlier call made."""
        if not await principal.is_there(self._reach, handle.name):
            await principal.put_user(self._reach, handle.name, None)

    async def end_access(self, handle: Handle) -> AccessEnded:
        """See `ending.py`."""
        return await ending.end_access(self._reach, self._clock, handle.name)

    async def clean_up(self, handle: Handle) -> None:
        """See `ending.py`."""
        await ending.clean_up(self._reach, self._clock, handle.name)

    async def names(self, prefix: str) -> Sequence[str]:
        """Every user with our prefix."""
        return await principal.names(self._reach, prefix)

    async def claim(self, installation: str, incarnation: str) -> Claim:
        """See `claim.py`."""
        return await claim(self._reach, installation, incarnation)

    async def adopt(self, installation: str, incarnation: str) -> None:
        """See `claim.py`."""
        await adopt(self._reach, installation, incarnation)

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """See `check.py`."""
        return await Examination(self, self._reach, self._settings, self._clock).run(roles, prefix)

    @property
    def account(self) -> str:
        """Whom we log in as."""
        return self._settings.user

    def log_in_with(self, password: Secret | None) -> None:
        """From the next request on; nothing of an earlier login is kept."""
        self._reach.log_in_with(password)

    async def change_password(self, account: str, password: Secret) -> None:
        """Give an account another password; its tags stay."""
        answer = await self._reach.get("users", account, expected=frozenset({200, 404}))
        if answer.status == 404:
            raise NotFound("the target has no such account")
        tags = ",".join(answer.row().texts("tags"))
        await principal.put_user(self._reach, account, password.reveal(), tags=tags)

    async def opens(self, account: str, password: Secret) -> bool:
        """Whether AMQP takes it; no virtual host is opened."""
        async with knocking(self._settings.host, self._settings.amqp_port, self._settings.agents_tls()) as door:
            return await door.authenticate(account, password.reveal())

    async def cut_sessions(self, account: str) -> int:
        """Close every connection of it."""
        return await ending.cut(self._reach, self._clock, account)

    async def _must_be_there(self, handle: Handle) -> None:
        if not await principal.is_there(self._reach, handle.name):
            raise NotFound("the target has no principal of that name")

    def _issued(self, handle: Handle, role: RoleSettings, password: str) -> Issued:
        host, port, vhost = self._settings.host, self._settings.amqp_port, role.permissions[0].vhost
        scheme, where = "amqp" if self._settings.encryption == "off" else "amqps", f"[{host}]" if ":" in host else host
        url = f"{scheme}://{handle.name}:{password}@{where}:{port}/{quote(vhost, safe='')}"
        fields: dict[str, str | int] = {"host": host, "port": port, "username": handle.name, "vhost": vhost}
        return Issued(fields=fields, secret={"password": Secret(password), "url": Secret(url)})
