"""OpenSSH: a user certificate of its own for each lease, minutes long, and a list by which hosts refuse it earlier.

    certificate.py   what is signed, by a CA of the target's own
    ledger.py        the key revocation list, which is the record of what was signed too
    keeper.py        who changes its files
    check.py         what `target check` looks at
    wire.py          the data types of SSH

No host is asked and nothing is made there: it believes the CA, and reads the list at each login. Open sessions
survive; no certificate lives longer than fifteen minutes. What a holder can leave behind: processes and files, as far
as the user may, and another way in (`authorized_keys`) unless the host takes certificates only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from broker.engines.protocol import AccessEnded, Claim, Finding, Issued, Lent, Making
from broker.engines.ssh.certificate import Made, UserAuthority
from broker.engines.ssh.check import examine
from broker.engines.ssh.keeper import Keeper
from broker.engines.ssh.ledger import Ledger, key_id
from broker.engines.ssh.settings import RoleSettings, Settings, role_settings
from broker.errors import NotPossible, NotYet
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Conflict, Malformed, Unavailable
from ca.runtime.clock import Clock

__all__ = ["ListedSsh", "RoleSettings", "Settings", "Ssh", "open_engine"]


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[Ssh]:
    """The engine of one target, with the power to take back where there is a list."""
    authority = None if lent.keys is None else UserAuthority(lent.keys, lent.target)
    if settings.revocations:
        yield ListedSsh(settings, lent.clock, authority, Keeper(settings.revocations, lent.clock))
    else:
        yield Ssh(settings, lent.clock, authority)


class Ssh:
    """Hosts that trust one CA, and read no list: a certificate ends at its expiry."""

    kind = "ssh"
    making = Making.UPSERT

    def __init__(self, settings: Settings, clock: Clock, authority: UserAuthority | None) -> None:
        self._settings, self._clock, self._authority = settings, clock, authority

    def plan(self, role: Role, name: str) -> Handle:
        """Name and principals; the same whoever computes it."""
        if not name.isascii() or not name.replace("_", "").isalnum() or name != name.lower():
            raise Malformed("the name of a principal has lower-case letters, digits and `_`")
        facts = {"principals": list(role_settings(role).principals)}
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def guarantee(self, role: Role) -> Guarantee:
        """Both ends are written into the certificate; a session outlives them."""
        within = int(role.ttl.total_seconds())
        return Guarantee(
            new_access=NewAccess.AT_EXPIRY,
            new_access_within=within,
            open_sessions=OpenSessions.SURVIVE,
            open_sessions_within=None,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=within,
        )

    def end_is_fixed(self, handle: Handle) -> bool:  # noqa: ARG002 - of each
        """A certificate's end can't be moved."""
        return True

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Sign one. It is of no use before it is handed over, so a call that froze on its way is refused after."""
        self._in_time(deadline)
        made = await self._signed(key_id(handle.name, 1), role, until)
        self._in_time(deadline)
        return self._issued(handle, made)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """The first would live on. Raises NotPossible."""
        raise NotPossible("a certificate can't be taken back here, so it can't be replaced: ask for another")

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - refused whatever they are
        """Raises NotPossible."""
        raise NotPossible("the end of a certificate is written into it: ask for another")

    async def occupy(self, handle: Handle) -> None:
        """Nothing is made under a name that is not handed over."""

    async def end_access(self, handle: Handle) -> AccessEnded:  # noqa: ARG002
        """Nothing to be done: it ends by itself, and the guarantee says when."""
        return AccessEnded(sessions_cut=0, endpoints=0)

    async def clean_up(self, handle: Handle) -> None:
        """Nothing was made."""

    async def authority(self) -> str:
        """The CA's line for `TrustedUserCAKeys`."""
        return await self._needed().line()

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:  # noqa: ARG002 - nobody is made
        """See `check.py`."""
        for role in roles:
            role_settings(role)
        return await examine(self._settings, self._authority, None)

    def _needed(self) -> UserAuthority:
        if self._authority is None:
            raise NotPossible("the broker keeps no keys, and certificates are signed by one")
        return self._authority

    def _in_time(self, deadline: datetime) -> None:
        if self._clock.now() > deadline:
            raise Unavailable("the call came only after its deadline, and nothing was handed over")

    async def _signed(self, identifier: str, role: Role, until: datetime) -> Made:
        return await self._needed().issue(identifier, role_settings(role).allowed(), self._clock.now(), until)

    def _issued(self, handle: Handle, made: Made) -> Issued:
        said = self._settings
        where = said.host if said.port == 22 else f"[{said.host}]:{said.port}"
        fields: dict[str, str | int] = {
            "host": said.host,
            "port": said.port,
            "username": str(handle.facts["principals"][0]),
            "principals": ",".join(handle.facts["principals"]),
            "certificate": made.certificate,
        }
        if said.host_keys:
            fields["known_hosts"] = "\n".join(f"{where} {key}" for key in said.host_keys)
        return Issued(fields=fields, secret={"private_key": made.private_key})


class ListedSsh(Ssh):
    """Hosts that read a list of ours at each login: a certificate is refused from the moment it is on it."""

    making = Making.CREATE_ONLY

    def __init__(self, settings: Settings, clock: Clock, authority: UserAuthority | None, keeper: Keeper) -> None:
        super().__init__(settings, clock, authority)
        self._keeper = keeper

    def guarantee(self, role: Role) -> Guarantee:
        """New logins end at once, by the list; without us, by the certificate."""
        within = int(role.ttl.total_seconds())
        return Guarantee(
            new_access=NewAccess.AT_ONCE,
            new_access_within=1,
            open_sessions=OpenSessions.SURVIVE,
            open_sessions_within=None,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=within,
        )

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Note it in the list, durable, then sign it: what can't be taken back is not given."""
        self._in_time(deadline)
        self._needed()
        identifier = await self._keeper.change(lambda ledger: ledger.sign(handle.name, until))
        made = await self._signed(identifier, role, until)
        self._in_time(deadline)
        return self._issued(handle, made)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Revoke what was signed under this name, then sign another. What it opened survives."""
        self._in_time(deadline)
        self._needed()
        identifier = await self._keeper.change(lambda ledger: ledger.sign_again(handle.name, until))
        made = await self._signed(identifier, role, until)
        self._in_time(deadline)
        return self._issued(handle, made)

    async def occupy(self, handle: Handle) -> None:
        """A name nobody signed for is revoked beforehand; one that is known stays to be ended."""

        def work(ledger: Ledger) -> None:
            if handle.name not in ledger.entries:
                ledger.revoke(handle.name, self._clock.now())

        await self._keeper.change(work, ending=True)

    async def end_access(self, handle: Handle) -> AccessEnded:
        """Put it on every list, and read that back."""
        await self._keeper.change(lambda ledger: ledger.revoke(handle.name, self._clock.now()), ending=True)
        if not (await self._keeper.look()).is_revoked(handle.name):
            raise NotYet("the revocation list does not say yet that nobody may log in")
        return AccessEnded(sessions_cut=0, endpoints=len(self._keeper.paths))

    async def names(self, prefix: str) -> Sequence[str]:
        """Under which names a certificate is signed, not revoked and not expired."""
        return (await self._keeper.look()).names(prefix, self._clock.now())

    async def claim(self, installation: str, incarnation: str) -> Claim:
        """Whose list it is; it may serve several targets of one installation."""

        def work(ledger: Ledger) -> Claim:
            ledger.claim = ledger.claim or Claim(installation=installation, incarnation=incarnation)
            if ledger.claim.installation != installation:
                raise Conflict(
                    f"the revocation list is claimed by the installation `{ledger.claim.installation}`:"
                    " name another path, or remove the file if that one is no more"
                )
            return ledger.claim

        return await self._keeper.change(work)

    async def adopt(self, installation: str, incarnation: str) -> None:
        """Renew our own claim."""
        await self.claim(installation, incarnation)

        def work(ledger: Ledger) -> None:
            ledger.claim = Claim(installation=installation, incarnation=incarnation)

        await self._keeper.change(work)

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:  # noqa: ARG002 - nobody is made
        """See `check.py`."""
        for role in roles:
            role_settings(role)
        return await examine(self._settings, self._authority, self._keeper)
