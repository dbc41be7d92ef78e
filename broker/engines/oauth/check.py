"""What `target check` proves of an OAuth server: it is asked for a token of each role, and made to take it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from broker.engines.oauth.server import Server
from broker.engines.oauth.settings import Settings, role_settings
from broker.engines.protocol import Finding, Lent
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.secret import Secret

if TYPE_CHECKING:
    from broker.engines.oauth import OAuth

_SOON = timedelta(seconds=10)
_JWT_PARTS = 3


@dataclass(frozen=True, slots=True)
class Examination:
    """What is looked at."""

    engine: OAuth
    server: Server
    settings: Settings
    lent: Lent

    async def run(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Look at everything a grant and an ending need; each probe is ended again."""
        try:
            where = await self.server.metadata()
        except Problem as problem:
            fix = "look at `issuer`, the network, and `tls_ca`"
            return [Finding(name="reachable", well=False, detail=str(problem), fix=fix)]
        found = [Finding(name="reachable", well=True, detail=f"tokens come from {where.token}")]
        if self.settings.ends == "at-once":
            found += [_vault(self.lent), _revocation(where.revocation, where.introspection)]
        found += self._client(where.methods)
        return [*found, *[await self._role(role, f"{prefix}probe") for role in roles]]

    def _client(self, methods: frozenset[str] | None) -> Iterator[Finding]:
        kind = self.settings.authentication
        if methods is not None and kind not in methods:
            fix = f"choose one of: {', '.join(sorted(methods))}"
            yield Finding(name="authentication", well=False, detail=f"the server knows no `{kind}`", fix=fix)
        if kind == "private_key_jwt" and (self.lent.keys is None or not self.lent.keys.durable):
            detail = "the key of this client is another one after each restart"
            fix = "let the broker's keys rest (`keys.store`), and give the server what `sojourn target ca` prints"
            yield Finding(name="client key", well=False, detail=detail, fix=fix)

    async def _role(self, role: Role, name: str) -> Finding:
        """A token of the role, obtained and ended."""
        now, said = self.lent.clock.now(), f"token of {role.full_name}"
        if role_settings(role).grant == "refresh_token" and self.lent.vault is None:
            fix = "name a sealing key (docs/sealed-values.md)"
            return Finding(name=said, well=False, detail="a refresh token must rest sealed", fix=fix)
        handle = self.engine.plan(role, name)
        try:
            await self.engine.end_access(handle)  # what a check that was killed left
            issued = await self.engine.create(handle, role, now + role.ttl, now + _SOON)
            await self.engine.end_access(handle)
        except Problem as problem:
            fix = "look at the client and its rights at the server, and at the role's settings"
            return Finding(name=said, well=False, detail=str(problem), fix=fix)
        if self.settings.ends == "at-once" and _is_jwt(issued.secret["access_token"]):
            fix = "say `ends: at-expiry`, unless every service asks the server about each token"
            detail = "its tokens are JWTs: a service that judges them by their signature goes on taking a revoked one"
            return Finding(name=said, well=False, detail=detail, fix=fix)
        return Finding(name=said, well=True, detail=f"given until {issued.fields['expires_at']}, and ended")


def _vault(lent: Lent) -> Finding:
    if lent.vault is None:
        fix = "name a sealing key (docs/sealed-values.md), or say `ends: at-expiry`"
        return Finding(name="vault", well=False, detail="a token that is to be revoked must rest sealed", fix=fix)
    return Finding(name="vault", well=True, detail="tokens rest sealed until they are revoked")


def _revocation(revocation: str | None, introspection: str | None) -> Finding:
    if revocation is None:
        fix = "say `ends: at-expiry`"
        return Finding(name="revocation", well=False, detail="the server offers no revocation", fix=fix)
    seen = "looked at by introspection" if introspection else "taken at the server's word: it offers no introspection"
    return Finding(name="revocation", well=True, detail=f"offered; {seen}")


def _is_jwt(token: Secret) -> bool:
    parts = token.reveal().split(".")
    return len(parts) == _JWT_PARTS and parts[0].startswith("eyJ")
