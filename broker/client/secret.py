"""A secret a task holds: what to connect to, the secret values, and whether it is still good for anything.

It hides itself wherever it is printed and can't be pickled. Renewal is the broker's own doing and shows only in
`until`; when the lease ends, `over` says why and whoever waits in `until_over` goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Never

from broker.model.ids import LeaseId
from broker.wire.credentials import CredentialTold
from broker.wire.leases import GuaranteeTold
from ca.errors import Malformed
from ca.runtime.secret import DOTS, Secret


class HeldSecret:
    """One secret, made by `LiveTask.secret`; `fields` may be shown, `secrets` may not."""

    __slots__ = ("_ended", "fields", "guarantee", "last", "lease", "over", "role", "secrets", "until")

    def __init__(self, told: CredentialTold) -> None:
        self.lease: LeaseId = told.lease.id
        self.role = told.lease.role
        self.fields: Mapping[str, str | int] = dict(told.fields)
        self.secrets: Mapping[str, Secret] = dict(told.secret)
        self.guarantee: GuaranteeTold = told.lease.guarantee
        self.until: datetime = told.lease.until
        """Until when the target admits a login, as far as we know; moved ahead by renewals."""
        self.last: datetime = told.lease.last
        """The moment no renewal passes."""
        self.over: str | None = None
        self._ended = asyncio.Event()

    def __getitem__(self, name: str) -> Secret:
        """One secret value. Raises Malformed: there is none of that name."""
        found = self.secrets.get(name)
        if found is None:
            raise Malformed(f"`{self.role}` gives no secret `{name[:60]}`, expected one of {self._names(self.secrets)}")
        return found

    def value(self, name: str) -> Secret:
        """One value, secret or not, behind the same wall. Raises Malformed: there is none of that name."""
        if name in self.fields:
            return Secret(str(self.fields[name]))
        if name in self.secrets:
            return self.secrets[name]
        known = self._names({**self.fields, **self.secrets})
        raise Malformed(f"`{self.role}` gives no field `{name[:60]}`, expected one of {known}")

    def revealed(self) -> Mapping[str, str | int]:
        """Everything, in clear: for the one place that hands it over."""
        return {**self.fields, **{name: secret.reveal() for name, secret in self.secrets.items()}}

    async def until_over(self) -> str:
        """Return when it is good for nothing any more, and why."""
        await self._ended.wait()
        return self.over or ""

    def renewed(self, until: datetime) -> None:
        """The broker moved its end ahead."""
        self.until = max(self.until, until)

    def ended(self, why: str) -> None:
        """The broker takes it back, or has."""
        self.over = self.over or why
        self._ended.set()

    @staticmethod
    def _names(mapping: Mapping[str, object]) -> str:
        return ", ".join(f"`{name}`" for name in mapping)

    def __repr__(self) -> str:
        return f"HeldSecret(role={self.role!r}, lease={self.lease!r}, until={self.until.isoformat()}, {DOTS})"

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not to be pickled or copied")
