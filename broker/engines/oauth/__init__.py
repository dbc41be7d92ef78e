"""Access tokens of an OAuth 2.0 server, for as long as a lease lives.

    server.py     discovery, the token endpoint, revocation, introspection
    answers.py    what it may answer, read strictly
    proving.py    how we prove to it which client we are
    settings.py   what an operator says

A token is nothing with a name: what is asked for and never arrives is known to nobody, and ends by itself. One that is
to be revoked must be shown again (RFC 7009), by whichever broker runs then; so it rests sealed until it is gone. A
refresh token never leaves.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from broker.engines.oauth.answers import TOKEN_TYPES, Token
from broker.engines.oauth.proving import ByKey, BySecret, Client
from broker.engines.oauth.server import Server
from broker.engines.oauth.settings import RoleSettings, Settings, role_settings
from broker.engines.protocol import AccessEnded, Finding, Issued, Lent, Making, Vault
from broker.errors import NotPossible, NotYet
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from broker.model.value import resting
from ca.errors import Conflict, NotFound, Problem, Unavailable
from ca.runtime.secret import Secret

__all__ = ["OAuth", "RoleSettings", "Settings", "open_engine"]

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ENDS = "ends"
_NO_SEAL = "nothing rests here: the broker has no sealing key (`keys.seal`)"


@asynccontextmanager
async def open_engine(settings: Settings, lent: Lent) -> AsyncIterator[OAuth]:
    """The engine of one server. Nothing is connected yet."""
    client: Client = ByKey(settings.client_id, lent.keys, f"oauth-{lent.target}")
    if settings.client_secret is not None:
        client = BySecret(settings.client_id, settings.client_secret)
    async with Server.open(settings, client, lent.clock) as server:
        yield OAuth(settings, lent, server)


class OAuth:
    """Tokens of one server."""

    kind = "oauth"
    making = Making.UPSERT
    """Nothing has a name there; a token that comes late was given to nobody."""

    def __init__(self, settings: Settings, lent: Lent, server: Server) -> None:
        self._settings, self._lent, self._server = settings, lent, server
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def plan(self, role: Role, name: str) -> Handle:
        """How it is asked for and how it ends, whatever the settings say later; the name is what it rests under."""
        facts = {"grant": role_settings(role).grant, _ENDS: self._settings.ends}
        return Handle(target=role.target, engine=self.kind, name=name, facts=facts)

    def guarantee(self, role: Role) -> Guarantee:
        """What the settings say of the server's tokens; what was opened with one is its service's to end."""
        life = max(self._settings.longest_token or role.ttl, role.ttl)
        at_once = self._settings.ends == "at-once"
        return Guarantee(
            new_access=NewAccess.AT_ONCE if at_once else NewAccess.AT_EXPIRY,
            new_access_within=2 if at_once else int(role.ttl.total_seconds()),
            open_sessions=OpenSessions.SURVIVE,
            open_sessions_within=None,
            if_down=IfDown.TARGET_ENDS_IT,
            if_down_within=int(life.total_seconds()),
        )

    def end_is_fixed(self, handle: Handle) -> bool:  # noqa: ARG002 - of every token
        """Its end is written into it."""
        return True

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Ask for one; it lives no longer than it may."""
        now, said = self._lent.clock.now(), role_settings(role)
        if now > deadline:
            raise Unavailable(f"the call for `{role.full_name}` came only after its deadline, and did nothing")
        name = self._name(handle)
        at_once = self._at_once(handle)
        if at_once and await self._vault().read(name) is not None:
            raise Conflict("a token of that name was asked for already")
        token = await self._token(role, said)
        latest = now + self._settings.longest_token if self._settings.longest_token is not None else until
        if at_once:
            await self._vault().write(name, _sealed(token))
        if token.ends_at > latest:
            await self._unwanted(handle, at_once=at_once)
            raise _too_long(role, token.ends_at - now, latest - now)
        fields: dict[str, str | int] = {"token_type": "Bearer", "expires_at": token.ends_at.isoformat()}
        if token.scope is not None:
            fields["scope"] = token.scope
        return Issued(fields=fields, secret={"access_token": token.access})

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Another token is another lease. Raises NotPossible."""
        raise NotPossible(f"a token of `{role.full_name}` can't be replaced under the same lease")

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002
        """Its end is written into it. Raises NotPossible."""
        raise NotPossible("the end of a token stands in it, and can't be moved")

    async def occupy(self, handle: Handle) -> None:
        """Nothing has a name there; what comes late is known to nobody."""

    async def end_access(self, handle: Handle) -> AccessEnded:
        """Revoke what rests of it, and look; a token that ended by itself is gone."""
        if self._at_once(handle):
            vault, name = self._vault(), self._name(handle)
            found = await vault.read(name)
            if found is not None:
                await self._revoke(found)
                await vault.forget(name)
        return AccessEnded(sessions_cut=0, endpoints=1)

    async def clean_up(self, handle: Handle) -> None:
        """Nothing of it rests."""
        if self._at_once(handle):
            await self._vault().forget(self._name(handle))

    async def authority(self) -> str:
        """The public key our assertions are signed with, as a JWK Set. Raises NotPossible, Unavailable."""
        return await self._server.client.authority()

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """See `check.py`."""
        from broker.engines.oauth.check import Examination

        return await Examination(self, self._server, self._settings, self._lent).run(roles, prefix)

    async def _token(self, role: Role, said: RoleSettings) -> Token:
        fields = [*(("resource", one) for one in said.resource)]
        if said.audience is not None:
            fields.append(("audience", said.audience))
        if said.grant == "client_credentials":
            return await self._server.token([("grant_type", said.grant), *fields], said.scope)
        if said.grant == "token_exchange":
            return await self._exchange(said, fields)
        name = resting(role.target, said.value or role.name)
        async with self._turns[name]:  # some servers give another refresh token each time, and kill whoever comes late
            return await self._refresh(role, said, name, fields)

    async def _exchange(self, said: RoleSettings, fields: list[tuple[str, str]]) -> Token:
        """Our own JWT-SVID for a token of theirs (RFC 8693, 2.1)."""
        if self._lent.tokens is None:
            raise Unavailable("the broker has no identity of its own here that could be exchanged")
        where = await self._server.metadata()
        subject = await self._lent.tokens.token(said.subject_audience or where.audience)
        wanted = [
            ("grant_type", _EXCHANGE),
            ("subject_token", subject.reveal()),
            ("subject_token_type", TOKEN_TYPES["jwt"]),
            ("requested_token_type", TOKEN_TYPES[said.requested_token_type]),
        ]
        return await self._server.token([*wanted, *fields], said.scope, said.requested_token_type)

    async def _refresh(self, role: Role, said: RoleSettings, name: str, fields: list[tuple[str, str]]) -> Token:
        """With what somebody consented to; another refresh token is durable before anything else is done."""
        vault = self._vault()
        ours = await vault.read(name)
        if ours is None:
            put = f"sojourn secret put {role.target}/{said.value or role.name}"
            raise NotFound(f"no refresh token was put for `{role.full_name}`: {put}")
        wanted = [("grant_type", said.grant), ("refresh_token", ours.reveal()), *fields]
        token = await self._server.token(wanted, said.scope)
        if token.refresh is not None and token.refresh != ours:
            await vault.write(name, token.refresh)
        return Token(access=token.access, refresh=None, ends_at=token.ends_at, scope=token.scope)

    async def _revoke(self, found: Secret) -> None:
        resting_token = json.loads(found.reveal())
        if self._lent.clock.now() >= datetime.fromisoformat(resting_token["ends_at"]):
            return
        access = Secret(resting_token["access"])
        if resting_token["refresh"] is not None:
            await self._server.revoke(Secret(resting_token["refresh"]), "refresh_token")
        await self._server.revoke(access, "access_token")
        if await self._server.is_active(access):
            raise NotYet("the OAuth server says that the token is still active")

    async def _unwanted(self, handle: Handle, *, at_once: bool) -> None:
        """A token nobody is given is revoked where it can be; otherwise it ends by itself, unknown."""
        if at_once:
            try:
                await self.end_access(handle)
            except Problem:
                return  # it rests: the ending of its lease does it

    def _at_once(self, handle: Handle) -> bool:
        return str(handle.facts.get(_ENDS, self._settings.ends)) == "at-once"

    def _name(self, handle: Handle) -> str:
        return f"oauth/{handle.target}/{handle.name}"

    def _vault(self) -> Vault:
        if self._lent.vault is None:
            raise Unavailable(_NO_SEAL)
        return self._lent.vault


def _sealed(token: Token) -> Secret:
    refresh = None if token.refresh is None else token.refresh.reveal()
    resting_token = {"access": token.access.reveal(), "refresh": refresh, "ends_at": token.ends_at.isoformat()}
    return Secret(json.dumps(resting_token))


def _too_long(role: Role, life: timedelta, most: timedelta) -> Conflict:
    lives, allowed = (f"{max(0, int(one.total_seconds()))} s" for one in (life, most))
    return Conflict(
        f"the OAuth server's token lives {lives}, and `{role.full_name}` allows {allowed}: let the server give shorter"
        " ones, or raise the role's `ttl` (or `longest_token`) above that"
    )
