"""A secret a task holds: what to connect to, the secret values, and whether it is still good for anything.

It hides itself wherever it is printed and can't be pickled. Renewal is the broker's own doing and shows only in
`until`. Before its last moment another secret takes its place here, with a user or password of its own: read the values
anew for each connection, and connect anew when `changed` says so. When nothing takes its place, `over` says why and
whoever waits in `until_over` goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Never

from broker.model.ids import LeaseId
from broker.wire.credentials import CredentialTold
from broker.wire.leases import GuaranteeTold
from ca.errors import Malformed
from ca.runtime import log
from ca.runtime.secret import DOTS, Secret

Changed = Callable[["HeldSecret"], object]
"""Hears of each secret that took another's place, on the event loop; it must not wait."""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class _Values:
    fields: Mapping[str, str | int]
    secrets: Mapping[str, Secret]


class HeldSecret:
    """One secret, made by `LiveTask.secret`; `fields` may be shown, `secrets` may not."""

    __slots__ = (
        "_change",
        "_ended",
        "_on_change",
        "_values",
        "generation",
        "guarantee",
        "last",
        "lease",
        "over",
        "role",
        "until",
    )

    def __init__(self, told: CredentialTold, on_change: Changed | None = None) -> None:
        self.role = told.lease.role
        self.over: str | None = None
        self.generation = 0
        """How often another secret took its place."""
        self._on_change = on_change
        self._ended, self._change = asyncio.Event(), asyncio.Event()
        self._take(told)

    def _take(self, told: CredentialTold) -> None:
        self.lease: LeaseId = told.lease.id
        self._values = _Values(dict(told.fields), dict(told.secret))
        self.guarantee: GuaranteeTold = told.lease.guarantee
        self.until: datetime = told.lease.until
        """Until when the target admits a login, as far as we know; moved ahead by renewals."""
        self.last: datetime = told.lease.last
        """The moment no renewal passes."""

    @property
    def fields(self) -> Mapping[str, str | int]:
        """What may be shown."""
        return self._values.fields

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """What may not."""
        return self._values.secrets

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
        """Everything of one generation, in clear: for the one place that hands it over."""
        values = self._values  # of one and the same secret, whatever another thread is told meanwhile
        return {**values.fields, **{name: secret.reveal() for name, secret in values.secrets.items()}}

    async def changed(self, seen: int | None = None) -> int:
        """Return the next generation once it is here, or is over: then the same one.

        Give the generation `seen`, so that none is missed between two calls.
        """
        before = self.generation if seen is None else seen
        while self.generation == before and self.over is None:
            self._change.clear()
            await self._change.wait()
        return self.generation

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
        self._change.set()

    def replaced(self, told: CredentialTold) -> None:
        """Another secret takes its place."""
        self._take(told)
        self.generation += 1
        self._change.set()
        if self._on_change is None:
            return
        try:
            self._on_change(self)
        except Exception as error:  # noqa: BLE001 - the caller's own; the secret is replaced all the same
            _log.warning("what hears of a changed secret failed", error=type(error).__name__)

    @staticmethod
    def _names(mapping: Mapping[str, object]) -> str:
        return ", ".join(f"`{name}`" for name in mapping)

    def __repr__(self) -> str:
        return f"HeldSecret(role={self.role!r}, lease={self.lease!r}, until={self.until.isoformat()}, {DOTS})"

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not to be pickled or copied")
