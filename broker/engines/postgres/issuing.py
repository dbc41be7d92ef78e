"""What an agent is handed: a password and the verifier made of it, or a certificate with its key."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from broker.engines.encryption import Encryption
from broker.engines.passwords import new_password
from broker.engines.postgres.certificate import ClientAuthority
from broker.engines.postgres.scram import ROUNDS, verifier
from broker.engines.postgres.settings import CERTIFICATE, Settings
from broker.engines.protocol import Issued
from broker.errors import NotPossible
from broker.model.lease import Handle
from ca.runtime.secret import Secret

_MODES = {"off": "", "require": "?sslmode=require", "verify": "?sslmode=verify-full"}
_WORTH_A_THREAD = 256
"""Rounds from which hashing would hold up everybody else on the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A new secret: what the target is sent, None for a certificate, and what the agent is handed."""

    verifier: str | None = field(repr=False)
    issued: Issued


@dataclass(frozen=True, slots=True)
class Issuing:
    """Makes secrets for one target."""

    settings: Settings
    authority: ClientAuthority | None
    encryption: Encryption

    async def fresh(self, handle: Handle, now: datetime, until: datetime) -> Fresh:
        """A secret of the kind `handle` names; times are the target's. Raises KeyUnusable, Unavailable."""
        if handle.facts["secret_kind"] == CERTIFICATE:
            return await self._certificate(handle, now, until)
        password = new_password()
        made = await hashed(password, ROUNDS[str(handle.facts["secret_kind"])])
        secret = {"password": Secret(password), "url": Secret(self._url(handle, password))}
        return Fresh(verifier=made, issued=Issued(fields=self._where(handle), secret=secret))

    async def _certificate(self, handle: Handle, now: datetime, until: datetime) -> Fresh:
        made = await self.needed().issue(handle.name, now, until)
        fields = {**self._where(handle), "certificate": made.certificate}
        secret = {"private_key": made.private_key, "url": Secret(self._url(handle, None))}
        return Fresh(verifier=None, issued=Issued(fields=fields, secret=secret))

    def needed(self) -> ClientAuthority:
        """The CA of this target. Raises NotPossible: the broker keeps no keys."""
        if self.authority is None:
            raise NotPossible("the broker keeps no keys, and certificates are signed by one")
        return self.authority

    def _where(self, handle: Handle) -> dict[str, str | int]:
        return {
            "host": self.settings.host,
            "port": self.settings.port,
            "database": self._database(handle),
            "username": handle.name,
        }

    def _database(self, handle: Handle) -> str:
        return str(handle.facts.get("database") or self.settings.database)

    def _url(self, handle: Handle, password: str | None) -> str:
        said, where = self.settings, quote(self._database(handle), safe="")
        mode = _MODES[self.encryption]
        host = f"[{said.host}]" if ":" in said.host else said.host
        who = handle.name if password is None else f"{handle.name}:{password}"
        return f"postgresql://{who}@{host}:{said.port}/{where}{mode}"


async def hashed(password: str, rounds: int) -> str:
    """A verifier; many rounds are made in a thread, OpenSSL lets go of the interpreter meanwhile."""
    if rounds < _WORTH_A_THREAD:
        return verifier(password, rounds)
    return await asyncio.to_thread(verifier, password, rounds)
