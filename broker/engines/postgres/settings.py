"""What an operator says about a PostgreSQL target."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from broker.engines.encryption import Encryption, chosen, context
from broker.engines.postgres.reach import Endpoint
from broker.model.role import Role
from ca.errors import Malformed
from ca.runtime.secret import Reference, Secret
from ca.runtime.settings import Duration, SecretReference
from ca.runtime.settings import Settings as Base

SecretKind = Literal["scram-4096", "scram-few", "certificate"]
CERTIFICATE = "certificate"


class Address(Base):
    """One endpoint."""

    host: str
    port: int = Field(default=5432, gt=0, lt=65536)


class Settings(Base):
    """One target of kind `postgres`.

    `database` is where agents log in unless their role names another of `databases`; what a leased user owns is
    dropped in whichever database it is. `standbys` are all further endpoints an agent could reach: an ending is
    verified on each. `tls` is asked of us and told to agents;
    left out it is `verify`, and `off` only where every endpoint is on loopback: whoever stands on the way to a server
    that isn't verified may ask for our password in clear.
    """

    kind: Literal["postgres"] = "postgres"
    host: str
    port: int = Field(default=5432, gt=0, lt=65536)
    database: str
    databases: tuple[str, ...] = ()
    user: str
    password: SecretReference
    standbys: tuple[Address, ...] = ()
    tls: Encryption | None = None
    tls_ca: Path | None = None
    secret_kind: SecretKind = "scram-4096"  # noqa: S105 - a kind, not a secret
    connections: int = Field(default=12, ge=2, le=100)
    clock_limit: Duration = timedelta(seconds=30)

    def endpoints(self, own: Callable[[], Secret] | None = None) -> tuple[Endpoint, ...]:
        """The primary, then the standbys; `own` gives our own password, left out it is `password`."""
        addresses = (Address(host=self.host, port=self.port), *self.standbys)
        tls = context(self.encryption, self.tls_ca) or False
        return tuple(
            Endpoint(
                host=address.host,
                port=address.port,
                database=self.database,
                user=self.user,
                password=own or self.password.read,
                tls=tls,
            )
            for address in addresses
        )

    @property
    def all_databases(self) -> tuple[str, ...]:
        """Every database an agent may be sent to, `database` first."""
        return tuple(dict.fromkeys((self.database, *self.databases)))

    @property
    def encryption(self) -> Encryption:
        """`tls` as it was said, or what is safe without a word."""
        return chosen(self.tls, (self.host, *(address.host for address in self.standbys)))


class RoleSettings(Base):
    """What a role of such a target says: groups that hold the rights, where, and how many sessions a lease may open."""

    groups: tuple[str, ...] = Field(min_length=1)
    database: str | None = None
    secret_kind: SecretKind | None = None
    sessions: int = Field(default=10, ge=1, le=1000)


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    value: dict[str, Any] = dict(role.settings)
    if isinstance(value.get("groups"), list):
        value["groups"] = tuple(value["groups"])
    try:
        return RoleSettings.model_validate(value)
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` needs `groups`, and may have `database`, `secret_kind` and `sessions`"
        ) from error


__all__ = ["CERTIFICATE", "Address", "Reference", "RoleSettings", "SecretKind", "Settings", "role_settings"]
