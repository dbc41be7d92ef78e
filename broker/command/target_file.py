"""What `sojourn target add` writes: the settings of one target as a file, and the SQL that lets a broker in."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from broker.settings import TargetSettings, check_name
from broker.wire.body import write_length
from ca.errors import Conflict, Malformed
from ca.runtime.places import make
from ca.runtime.settings import loads

_PLAIN = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:\s]+))(?::([0-9]{1,5}))?")
_LEVELS = ("public", "internal", "confidential", "restricted")
_DEFAULT = "internal"
CERTIFICATE = "certificate"
MARKER = "sojourn_cert"
"""The group of roles that log in by certificate, as the engine calls it (`broker/engines/postgres/certificate.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRole:
    """A role as it was typed: `NAME=GROUP[,GROUP…][@DATABASE][:sensitivity]`."""

    name: str
    groups: tuple[str, ...]
    sensitivity: str
    database: str | None = None

    @classmethod
    def parse(cls, text: str, databases: Sequence[str] = ()) -> WantedRole:
        """Read one; only what stands in `databases` is taken for one. Raises Malformed."""
        name, equals, rest = text.partition("=")
        before, colon, last = rest.rpartition(":")
        named = bool(colon) and last in _LEVELS
        said = before if named else rest
        front, at, where = said.rpartition("@")
        elsewhere = bool(at) and where in databases
        groups = tuple(group for group in (front if elsewhere else said).split(",") if group)
        if not equals or not groups:
            raise Malformed(f"`{text[:80]}` is not a role: expected NAME=GROUP or NAME=GROUP:{_DEFAULT}")
        return cls(
            name=check_name(name),
            groups=groups,
            sensitivity=last if named else _DEFAULT,
            database=where if elsewhere else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTarget:
    """A PostgreSQL as it was typed."""

    name: str
    host: str
    port: int
    database: str
    user: str
    password_file: Path
    tls: str | None
    tls_ca: Path | None
    ttl: timedelta | None
    roles: Sequence[WantedRole]
    databases: Sequence[str] = ()
    standbys: Sequence[str] = ()
    secret_kind: str | None = None

    def text(self) -> str:
        """The settings file, read back and found good. Raises BadSettings, Malformed."""
        engine: dict[str, Any] = {
            "kind": "postgres",
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "user": self.user,
            "password": f"file:{self.password_file.absolute()}",
        }
        if self.tls is not None:
            engine["tls"] = self.tls
        if self.tls_ca is not None:
            engine["tls_ca"] = str(self.tls_ca.absolute())
        if self.databases:
            engine["databases"] = list(self.databases)
        if self.standbys:
            engine["standbys"] = [_address(standby) for standby in self.standbys]
        if self.secret_kind is not None:
            engine["secret_kind"] = self.secret_kind
        said = {"engine": engine, "roles": {role.name: self._role(role) for role in self.roles}}
        if len(said["roles"]) != len(self.roles):
            raise Malformed("two roles have the same name")
        text = f"# Written by `sojourn target add {check_name(self.name)}`; config/broker.yaml explains every key.\n"
        text += yaml.dump(said, Dumper=_Quoting, sort_keys=False, allow_unicode=True)
        loads(text, f"{self.name}.yaml", TargetSettings)
        return text

    def _role(self, role: WantedRole) -> Mapping[str, Any]:
        ttl = {} if self.ttl is None else {"ttl": write_length(self.ttl)}
        where = {} if role.database is None else {"database": role.database}
        return {"sensitivity": role.sensitivity, **ttl, "engine": {"groups": list(role.groups), **where}}


def _address(text: str) -> Mapping[str, Any]:
    """`host`, `host:port` or `[address]:port`. Raises Malformed."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise Malformed(f"`{text[:80]}` is not an address: expected HOST or HOST:PORT")
    return {"host": found[1] or found[2], **({"port": int(found[3])} if found[3] else {})}


class _Quoting(yaml.SafeDumper):
    """Texts in quotes, so that `no`, `012` and the like stay what they are to a strict reader."""


_Quoting.add_representer(str, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"'))


def put(folder: Path, name: str, text: str) -> Path:
    """A new private file, whole or not at all.

    Raises:
        Conflict: there is one of that name already.
        Denied: others may write in the folder.
    """
    path = make(folder) / f"{name}.yaml"
    draft = folder / f".{name}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)  # unlike a rename, it never replaces
    except FileExistsError as error:
        raise Conflict(f"there is a target `{name}` already: edit or remove `{path}`") from error
    finally:
        draft.unlink()
    return path


def remove(path: Path) -> None:
    """Take a file back; one that is gone already is as good."""
    path.unlink(missing_ok=True)


def least_sql(user: str, databases: Sequence[str], groups: Sequence[str], *, certificates: bool = False) -> str:
    """What whoever owns the databases has to run, and nothing beyond it."""
    me = quoted(user)
    lines = [
        "-- Run on the primary, as a superuser or the owner of the groups; then set the password (psql: \\password).",
        f"CREATE ROLE {me} LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION;",
        *(f"GRANT CONNECT ON DATABASE {quoted(database)} TO {me};" for database in databases),
        f"GRANT pg_signal_backend TO {me};",
    ]
    for group in dict.fromkeys(groups):
        lines += [
            "",
            f"-- The rights of a lease are those of its group. Skip this line if the group {quoted(group)} exists:",
            f"CREATE ROLE {quoted(group)} NOLOGIN;",
            f"GRANT {quoted(group)} TO {me} WITH ADMIN OPTION;",
        ]
    if certificates:
        lines += [
            "",
            "-- Certificates: `sojourn target ca` prints what ssl_ca_file must hold; and in pg_hba.conf, above others:",
            f"--   hostssl all {me} all scram-sha-256",
            f"--   hostssl all +{MARKER} all cert",
            f"--   host all +{MARKER} all reject",
            f"CREATE ROLE {MARKER} NOLOGIN;",
            f"GRANT {MARKER} TO {me} WITH ADMIN OPTION;",
        ]
    return "\n".join(lines)


def quoted(identifier: str) -> str:
    """An SQL identifier. Raises Malformed: it can't be one."""
    if not identifier or "\0" in identifier or len(identifier.encode()) > 63 or not identifier.isprintable():
        raise Malformed(f"`{identifier[:70]}` can't be a name in PostgreSQL: expected 1 to 63 printable bytes")
    if _PLAIN.fullmatch(identifier):
        return identifier
    escaped = identifier.replace('"', '""')
    return f'"{escaped}"'
