"""Where a store on PostgreSQL is, as an operator writes it: one line, with no secret in it.

    postgresql://sojourn@db.internal/sojourn?password=file:/run/secrets/pg&sslrootcert=/etc/sojourn/db-ca.pem
    postgresql://sojourn@db-1:5432,db-2:5432/sojourn?password=env:STORE_PASSWORD
    postgresql:///sojourn?user=sojourn&host=/run/postgresql

Several hosts are tried in order for the one that takes writes. `password` is read anew for every connection, so it may
be changed while we run; without it the usual `PGPASSWORD` and `.pgpass` count. `sslmode` is `verify` unless every host
is a socket or an address on loopback; `require` hides the traffic but trusts whoever answers.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from ca.errors import Malformed
from ca.runtime.secret import Reference

EXPECTED = "`postgresql://user@host/database?password=file:/path`"
_KEYS = frozenset({"user", "host", "password", "sslmode", "sslrootcert", "sslcert", "sslkey"})
_MODES = ("disable", "require", "verify")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to connect, as whom, and how the server proves itself."""

    hosts: Sequence[tuple[str, int]]
    user: str
    database: str
    password: Reference | None = None
    mode: str
    root: Path | None = None
    certificate: tuple[Path, Path] | None = None

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.database}@{where}"

    def options(self) -> dict[str, Any]:
        """What `asyncpg.connect` is told. Raises Malformed: a file or a secret is missing."""
        told: dict[str, Any] = {
            "host": [host for host, _ in self.hosts],
            "port": [port for _, port in self.hosts],
            "user": self.user,
            "database": self.database,
            "ssl": self._context(),
        }
        if self.password is not None:
            told["password"] = self.password.read().reveal()
        return told

    def _context(self) -> ssl.SSLContext | bool:
        if self.mode == "disable":
            return False
        try:
            context = ssl.create_default_context(cafile=None if self.root is None else str(self.root))
            if self.certificate is not None:
                context.load_cert_chain(*self.certificate)
        except (OSError, ssl.SSLError) as error:
            raise Malformed(f"can't use the certificates of the store's address: {error}") from error
        if self.mode == "require":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def parse(url: str) -> Address:
    """Read an address.

    Raises:
        Malformed: with what was expected. The text is not repeated: somebody may have put a password into it.
    """
    try:
        netloc, path, query, fragment = _split(url)
        asked = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        user, secret, where = _authority(netloc)
        hosts = [_host(one) for one in (asked.get("host") or where).split(",")]
    except ValueError:
        raise Malformed(f"the store's address can't be read: expected {EXPECTED}") from None
    if secret:
        raise Malformed("the store's address must not hold a password: say `?password=file:/path` or `env:NAME`")
    unknown = sorted(asked.keys() - _KEYS)
    if unknown:
        raise Malformed(f"the store's address may say only `{'`, `'.join(sorted(_KEYS))}`, not `{unknown[0][:40]}`")
    user, database = user or asked.get("user", ""), unquote(path)
    if not user or not database or "/" in database or fragment:
        raise Malformed(f"the store's address names no user or no database: expected {EXPECTED}")
    return Address(
        hosts=hosts,
        user=user,
        database=database,
        password=Reference.parse(asked["password"]) if "password" in asked else None,
        mode=_mode(asked.get("sslmode"), hosts),
        root=_path(asked, "sslrootcert"),
        certificate=_certificate(asked),
    )


def _split(url: str) -> tuple[str, str, str, str]:
    """Authority, path, query and fragment. `urlsplit` takes no bracketed address behind another host any more."""
    if not url.isprintable():
        raise ValueError("characters that can't be printed")
    rest, _, fragment = url.partition("://")[2].partition("#")
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    return netloc, path, query, fragment


def _authority(netloc: str) -> tuple[str, bool, str]:
    """User, whether there is a password, and the hosts."""
    person, _, where = netloc.rpartition("@")
    user, colon, _ = person.partition(":")
    return unquote(user), bool(colon), where


def _host(text: str) -> tuple[str, int]:
    if text.startswith("/"):
        return text, 5432
    name, port = text, "5432"
    if text.startswith("["):
        name, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError("no address in brackets")
        name, port = str(ipaddress.IPv6Address(name)), rest.removeprefix(":") or port
    elif ":" in text:
        name, _, port = text.rpartition(":")
    if not name or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("no host")
    return name, int(port)


def _mode(asked: str | None, hosts: Sequence[tuple[str, int]]) -> str:
    near = all(_is_near(host) for host, _ in hosts)
    mode = asked or ("disable" if near else "verify")
    if mode not in _MODES:
        raise Malformed(f"`sslmode` of the store's address must be one of `{'`, `'.join(_MODES)}`")
    if mode == "disable" and not near:
        raise Malformed("`sslmode=disable` is for a store on this machine: expected `verify` or `require`")
    return mode


def _is_near(host: str) -> bool:
    """Only a socket or an address: a name, `localhost` too, is whatever a resolver makes of it."""
    try:
        return host.startswith("/") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _path(asked: dict[str, str], key: str) -> Path | None:
    if key not in asked:
        return None
    path = Path(asked[key])
    if not path.is_absolute():
        raise Malformed(f"`{key}` of the store's address needs an absolute path")
    return path


def _certificate(asked: dict[str, str]) -> tuple[Path, Path] | None:
    certificate, key = _path(asked, "sslcert"), _path(asked, "sslkey")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise Malformed("`sslcert` and `sslkey` of the store's address belong together")
    return certificate, key
