"""Values that an operator gave, and accounts that are lent to one lease at a time.

    value.py      a sealed value: it leaves through a lease and can't be taken back, only replaced where it is used
    checkout.py   a legacy account: its password is new for each lease, and another one nobody knows after it

Nothing here speaks to a target. An account's password is changed through the engine of the target it is an account of
(`Lent.rotating`); the two engines don't know one another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from broker.engines.protocol import AccessEnded, Finding, Issued, Lent, Making
from broker.engines.static import value
from broker.engines.static.checkout import Account, lent_account
from broker.engines.static.settings import RoleSettings, Settings, role_settings
from broker.errors import NotPossible
from broker.model.lease import EXCLUSIVE, Handle
from broker.model.role import Guarantee, Role
from broker.model.value import resting
from ca.errors import Malformed, Unavailable

__all__ = ["RoleSettings", "Settings", "Static", "open_engine"]


_OURS = "sj_"


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Static]:  # noqa: ARG001 - as all of them
    """The engine of one shelf."""
    yield Static(lent)


class Static:
    """Values and accounts of one target."""

    kind = "static"
    making = Making.UPSERT
    """A late check-out changes the password once more, to one that nobody was given."""

    def __init__(self, lent: Lent) -> None:
        self._lent = lent

    def plan(self, role: Role, name: str) -> Handle:
        """Which value, or which account; the name is the lease's, nothing is called by it outside."""
        said = role_settings(role)
        if said.check_out is None:
            facts = {"value": resting(role.target, said.value or role.name)}
        else:
            there = said.check_out
            if there.account.lower().startswith(_OURS):
                raise Malformed(f"the role `{role.full_name}` lends `{there.account}`: what begins so is a lease's own")
            facts = {"at": there.target, "account": there.account, EXCLUSIVE: f"{there.target}/{there.account}"}
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def guarantee(self, role: Role) -> Guarantee:
        """What is known outside ends with its rotation, by somebody else; what is lent ends at once."""
        return value.GUARANTEE if role_settings(role).check_out is None else lent_account()

    def end_is_fixed(self, handle: Handle) -> bool:
        """An account is lent for one `ttl`: nobody but us ends that, so nothing is gained by renewing it."""
        return EXCLUSIVE in handle.facts

    def beneath(self, role: Role) -> str | None:
        """Where the account is."""
        there = role_settings(role).check_out
        return None if there is None else there.target

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Take the value from the vault, or give the account a password nobody had before."""
        if self._lent.clock.now() > deadline:
            raise Unavailable(f"the call for `{role.full_name}` came only after its deadline, and did nothing")
        said = role_settings(role)
        if EXCLUSIVE in handle.facts:
            return await self._account(handle).check_out(said.fields)
        return await value.issued(self._lent.vault, str(handle.facts["value"]), said, role.full_name)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """What was handed over is known; another lease is another password. Raises NotPossible."""
        raise NotPossible(f"what `{role.full_name}` hands over can't be replaced under the same lease")

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - nothing outside knows of an end
        """A value has no end to be moved. Raises NotPossible for an account."""
        if EXCLUSIVE in handle.facts:
            raise NotPossible("an account is lent for a stated time, and then asked for again")

    async def occupy(self, handle: Handle) -> None:
        """Nothing is made under a name; a check-out that comes late hands its password to nobody."""

    async def end_access(self, handle: Handle) -> AccessEnded:
        """Check the account in; a value stays known to whoever was told it."""
        if EXCLUSIVE in handle.facts:
            return await self._account(handle).check_in()
        return AccessEnded(sessions_cut=0, endpoints=0)

    async def clean_up(self, handle: Handle) -> None:
        """Nothing was made."""

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:  # noqa: ARG002 - nothing is made
        """Each value is there and opens; each account can be reached."""
        holds = any(role_settings(role).check_out is None for role in roles)
        found = [value.vault_finding(self._lent.vault)] if holds else []
        for role in roles:
            said, handle = role_settings(role), self.plan(role, "probe")
            if said.check_out is None:
                found.append(await value.finding(self._lent.vault, str(handle.facts["value"]), role.full_name))
            else:
                found.append(await self._account(handle).finding(role.full_name))
        return found

    def _account(self, handle: Handle) -> Account:
        if self._lent.rotating is None:
            raise Unavailable("no other target can be asked to change a password here")
        at, account = str(handle.facts["at"]), str(handle.facts["account"])
        return Account(self._lent.rotating(at), at, account)
