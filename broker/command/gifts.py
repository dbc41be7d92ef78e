"""How `sojourn run` hands secrets to its command: as it was told, or as libpq wants them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from broker.client.child import Delivery, Gift
from broker.client.secret import HeldSecret
from ca.errors import Malformed
from ca.runtime.secret import Secret

POSTGRES = "postgres"
"""The engine whose secrets need not be mapped: psql and everything on libpq find them by themselves."""

SERVICE = "sojourn"
"""What the command's database is called in its service file."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One `NAME=role[:field]`; without a field it is everything of the secret, as JSON."""

    variable: str
    role: str
    field: str | None
    delivery: Delivery

    @classmethod
    def parse(cls, text: str, delivery: Delivery) -> Wanted:
        """Read one. Raises Malformed."""
        variable, equals, rest = text.partition("=")
        role, _, field = rest.partition(":")
        if not equals or not role or not _NAME.fullmatch(variable):
            raise Malformed(f"`{text[:80]}` is not understood: expected NAME=role:field")
        if delivery is Delivery.VARIABLE and not field:
            raise Malformed(
                f"`{text[:80]}` does not say which field: expected NAME=role:field, as in PW={role}:password"
            )
        return cls(variable=variable, role=role, field=field or None, delivery=delivery)


def check(bare: Sequence[str], wanted: Sequence[Wanted], engines: Mapping[str, str]) -> None:
    """See that every secret has a way to the command, before anything is asked for.

    `bare` are the roles nothing was said of, `engines` the engine of each role there is.

    Raises:
        Malformed: a role does not exist, has no way, or two want the same variables.
    """
    for role in (*bare, *(one.role for one in wanted)):
        if role not in engines:
            raise Malformed(f"there is no role `{role[:80]}`: sojourn secret list shows what may be asked for")
    lost = [role for role in bare if engines[role] != POSTGRES]
    if lost:
        raise Malformed(f"how is the command to get `{lost[0]}`? say --env, --file or --fd NAME={lost[0]}:FIELD")
    if len(bare) > 1:
        raise Malformed("two databases want the same PG… variables: say --env, --file or --fd for all but one")
    variables = [one.variable for one in wanted]
    twice = sorted({name for name in variables if variables.count(name) > 1})
    if twice:
        raise Malformed(f"two secrets want the variable `{twice[0]}`")


def gifts(bare: Sequence[str], wanted: Sequence[Wanted], held: Mapping[str, HeldSecret]) -> list[Gift]:
    """What the command is given. Raises Malformed: a secret has no such field."""
    found = [_gift(one, held[one.role]) for one in wanted]
    for role in bare:
        found += libpq(held[role])
    return found


def libpq(held: HeldSecret) -> list[Gift]:
    """PGHOST and its kin; what is secret in a private file, which no other process's environment listing shows."""
    parts = [held.value(name).reveal() for name in ("host", "port", "database", "username")]
    plain = dict(zip(("PGHOST", "PGPORT", "PGDATABASE", "PGUSER"), parts, strict=True))
    mode = _tls_mode(held)
    if mode is not None:
        plain["PGSSLMODE"] = mode
    plain["PGSERVICE"] = SERVICE
    return [
        *(Gift(variable=name, value=Secret(value), delivery=Delivery.VARIABLE) for name, value in plain.items()),
        *(Gift(variable=name, value=value, delivery=Delivery.FILE) for name, value in _proofs(held, parts).items()),
    ]


def _proofs(held: HeldSecret, parts: Sequence[str]) -> Mapping[str, Secret]:
    """What logs in: a certificate with its key, or a line of a password file.

    Who logs in where stands in a service file too, which libpq prefers to the variables: it can be rewritten with the
    name of another user while the command runs.
    """
    words = dict(zip(("host", "port", "dbname", "user"), parts, strict=True))
    if "private_key" in held.secrets:
        proofs = {"PGSSLCERT": held.value("certificate"), "PGSSLKEY": held["private_key"]}
    else:
        words["password"] = password = held["password"].reveal()
        escaped = (part.replace("\\", "\\\\").replace(":", "\\:") for part in (*parts, password))
        proofs = {"PGPASSFILE": Secret(f"{':'.join(escaped)}\n")}
    service = "".join(f"{name}={value}\n" for name, value in words.items())
    return {**proofs, "PGSERVICEFILE": Secret(f"[{SERVICE}]\n{service}")}


def _gift(wanted: Wanted, held: HeldSecret) -> Gift:
    if wanted.field is None:
        value = Secret(json.dumps(dict(held.revealed()), ensure_ascii=False))
    else:
        value = held.value(wanted.field)
    return Gift(variable=wanted.variable, value=value, delivery=wanted.delivery)


def _tls_mode(held: HeldSecret) -> str | None:
    """What the target's operator asks of agents; libpq by itself would take less."""
    url = held.secrets.get("url")
    if url is None:
        return None
    found = parse_qs(urlsplit(url.reveal()).query).get("sslmode", [])
    return found[0] if found else None
