"""What an OAuth server answers, read strictly: what is not as the standards say is no token, and never repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from broker.errors import OutcomeUnknown
from ca.errors import Denied, Malformed, Problem, Unavailable
from ca.runtime.fetch import Fetched, parse_url
from ca.runtime.secret import Secret

_CODE = re.compile(r"[a-z_]{1,40}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_LONGEST = timedelta(days=366)
TOKEN_TYPES = {
    "access_token": "urn:ietf:params:oauth:token-type:access_token",
    "jwt": "urn:ietf:params:oauth:token-type:jwt",
}
_OK, _TOO_MANY, _SERVER = 200, 429, 500


class TokenRefused(Denied):
    """The server does not give this client such a token."""

    code = "token-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Where a server answers what (RFC 8414); `audience` is what assertions for it are made for."""

    audience: str
    token: str
    revocation: str | None
    introspection: str | None
    grants: frozenset[str] | None = None
    methods: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One access token, and the refresh token that came with it."""

    access: Secret = field(repr=False)
    refresh: Secret | None = field(repr=False)
    ends_at: datetime
    scope: str | None


def metadata(fetched: Fetched, issuer: str) -> Metadata:
    """Raises Unavailable: not as RFC 8414 says, or another issuer's (3.3)."""
    document = fetched.json() if fetched.status == _OK else None
    if not isinstance(document, dict):
        raise Unavailable(f"`{_host(issuer)}` tells no metadata of an OAuth server")
    if document.get("issuer") != issuer:
        raise Unavailable(f"the metadata at `{_host(issuer)}` is another issuer's")
    token = _endpoint(document, "token_endpoint")
    if token is None:
        raise Unavailable(f"`{_host(issuer)}` has no token endpoint")
    return Metadata(
        audience=issuer,
        token=token,
        revocation=_endpoint(document, "revocation_endpoint"),
        introspection=_endpoint(document, "introspection_endpoint"),
        grants=_names(document, "grant_types_supported"),
        methods=_names(document, "token_endpoint_auth_methods_supported"),
    )


def token(fetched: Fetched, asked: Sequence[str], exchanged: str | None, now: datetime) -> Token:
    """The token of an answer (RFC 6749, 5.1; RFC 8693, 2.2.1).

    Raises:
        TokenRefused: the server said no (RFC 6749, 5.2).
        OutcomeUnknown: it failed at something.
        Unavailable: what it said is no such answer, or is more than was asked for.
    """
    if fetched.status != _OK:
        raise refusal(fetched)
    document = fetched.json()
    if not isinstance(document, dict):
        raise Unavailable("the OAuth server answered something other than an object")
    if exchanged is not None and document.get("issued_token_type") != TOKEN_TYPES[exchanged]:
        raise Unavailable(f"the OAuth server did not exchange the token for the type `{exchanged}`")
    kind = document.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Unavailable("the OAuth server gave a token that is no bearer token")
    return Token(
        access=_secret(document, "access_token"),
        refresh=_secret(document, "refresh_token") if "refresh_token" in document else None,
        ends_at=now + _life(document),
        scope=_scope(document, asked),
    )


def refusal(fetched: Fetched) -> Problem:
    """What an answer that is no token means."""
    if fetched.status >= _SERVER:
        return OutcomeUnknown(f"the OAuth server failed ({fetched.status})")
    if fetched.status == _TOO_MANY:
        return Unavailable("the OAuth server was asked too often")
    try:
        said = fetched.json()
    except Unavailable:
        said = None
    code = said.get("error") if isinstance(said, dict) else None
    shown = f": `{code}`" if isinstance(code, str) and _CODE.fullmatch(code) else ""
    return TokenRefused(f"the OAuth server refuses this client or what it asks for ({fetched.status}){shown}")


def is_active(fetched: Fetched) -> bool:
    """What introspection says of a token (RFC 7662, 2.2). Raises Unavailable: nothing that can be relied on."""
    document = fetched.json() if fetched.status == _OK else None
    active = document.get("active") if isinstance(document, dict) else None
    if not isinstance(active, bool):
        raise Unavailable(f"the OAuth server does not say whether a token is active ({fetched.status})")
    return active


def _endpoint(document: Mapping[str, Any], name: str) -> str | None:
    said = document.get(name)
    if said is None:
        return None
    try:
        return str(parse_url(said)) if isinstance(said, str) else _fail(name)
    except Malformed:
        return _fail(name)


def _fail(name: str) -> str:
    raise Unavailable(f"the metadata of the OAuth server holds a `{name}` that is no `https` address")


def _names(document: Mapping[str, Any], name: str) -> frozenset[str] | None:
    said = document.get(name)
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        return None
    return frozenset(said)


def _secret(document: Mapping[str, Any], name: str) -> Secret:
    said = document.get(name)
    if not isinstance(said, str) or not _TOKEN.fullmatch(said):
        raise Unavailable(f"the OAuth server's `{name}` is not a token")
    return Secret(said)


def _life(document: Mapping[str, Any]) -> timedelta:
    """How long it lives; a server that does not say gives a token nobody could answer for."""
    said = document.get("expires_in")
    if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) <= 9:
        said = int(said)  # some write it as a text
    if not isinstance(said, int) or isinstance(said, bool) or not 0 < said <= _LONGEST.total_seconds():
        raise Unavailable("the OAuth server does not say how long its token lives (`expires_in`)")
    return timedelta(seconds=said)


def _scope(document: Mapping[str, Any], asked: Sequence[str]) -> str | None:
    """What was granted: what was asked, or less (RFC 6749, 5.1)."""
    said = document.get("scope")
    if said is None:
        return " ".join(asked) or None
    if not isinstance(said, str):
        raise Unavailable("the OAuth server's `scope` is not a text")
    if asked and not set(said.split()) <= set(asked):
        raise Unavailable("the OAuth server gave a token for more than was asked for")
    return said or None


def _host(url: str) -> str:
    return urlsplit(url).hostname or "?"
