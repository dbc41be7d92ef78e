"""What an operator says about a MySQL or MariaDB target."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from broker.engines.encryption import Encryption, chosen, context
from broker.engines.mysql.endpoint import Endpoint
from broker.model.role import Role
from ca.errors import Malformed
from ca.runtime.secret import Secret
from ca.runtime.settings import Duration, SecretReference, parsed_by
from ca.runtime.settings import Settings as Base

SecretKind = Literal["native", "ed25519", "sha2"]

_NAME = re.compile(r"[A-Za-z0-9_$-]{1,64}")
_ITS_OWN = frozenset({"mysql", "sys", "performance_schema", "information_schema"})

PRIVILEGES = (
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "EXECUTE",
    "SHOW VIEW",
    "LOCK TABLES",
    "CREATE TEMPORARY TABLES",
)
"""What a role may list by itself: nothing that leaves an object, an account or a right behind. More comes by a role of
the target's, which its owner made and answers for."""


def _place(text: str) -> str:
    """A schema, or a table of one. Raises Malformed."""
    schema, dot, table = text.partition(".")
    if not _NAME.fullmatch(schema) or (dot and not _NAME.fullmatch(table)):
        raise Malformed(f"`{text[:80]}` is no place: expected `schema` or `schema.table`, of letters, digits, `_$-`")
    if schema.lower() in _ITS_OWN:
        raise Malformed(f"nothing is granted in the server's own schema `{schema}`")
    return text


def _group(text: str) -> str:
    """A role of the target's. Raises Malformed."""
    if not _NAME.fullmatch(text) or text.upper() in {"NONE", "ALL", "PUBLIC", "DEFAULT"}:
        raise Malformed(f"`{text[:80]}` is not the name of a role: expected letters, digits, `_$-`")
    return text


def _privilege(text: str) -> str:
    """One privilege, in capitals. Raises Malformed."""
    if text.upper() not in PRIVILEGES:
        raise Malformed(f"`{text[:40]}` is no privilege a role may list, expected one of {', '.join(PRIVILEGES)}")
    return text.upper()


class Address(Base):
    """One endpoint."""

    host: str
    port: int = Field(default=3306, gt=0, lt=65536)


class Settings(Base):
    """One target of kind `mysql`.

    `database` is only told to agents. `replicas` are all further endpoints an agent could reach: an ending is verified
    on each. `tls` is asked of us, told to agents, and required of leased users; left out it is `verify`, and `off`
    only where every endpoint is on loopback. `secret_kind` left out follows from the server: `native` on MariaDB,
    `sha2` on MySQL.
    """

    kind: Literal["mysql"]
    host: str
    port: int = Field(default=3306, gt=0, lt=65536)
    database: str | None = None
    user: str
    password: SecretReference
    replicas: tuple[Address, ...] = ()
    tls: Encryption | None = None
    tls_ca: Path | None = None
    secret_kind: SecretKind | None = None
    connections: int = Field(default=8, ge=2, le=100)
    clock_limit: Duration = timedelta(seconds=30)

    def endpoints(self, password: Callable[[], Secret]) -> tuple[Endpoint, ...]:
        """The primary, then the replicas; `password` is read at each login."""
        tls = context(self.encryption, self.tls_ca)
        return tuple(
            Endpoint(host=at.host, port=at.port, user=self.user, password=password, tls=tls)
            for at in (Address(host=self.host, port=self.port), *self.replicas)
        )

    @property
    def encryption(self) -> Encryption:
        """`tls` as it was said, or what is safe without a word."""
        return chosen(self.tls, (self.host, *(address.host for address in self.replicas)))


class RoleSettings(Base):
    """What a role of such a target says: a role of the target's that is granted, privileges by place, or both."""

    role: Annotated[str, parsed_by(_group)] | None = None
    privileges: Mapping[Annotated[str, parsed_by(_place)], tuple[Annotated[str, parsed_by(_privilege)], ...]] = Field(
        default_factory=dict
    )
    secret_kind: SecretKind | None = None
    sessions: int = Field(default=10, ge=1, le=1000)

    @model_validator(mode="after")
    def _gives_something(self) -> Self:
        if self.role is None and not any(self.privileges.values()):
            raise ValueError("a role of a mysql target needs `role` or `privileges`")
        if not all(self.privileges.values()):
            raise ValueError("each place in `privileges` needs at least one privilege")
        return self


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    try:
        return RoleSettings.model_validate_json(json.dumps(dict(role.settings)))
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` needs `role` or `privileges`, and may have `secret_kind` and `sessions`"
        ) from error
