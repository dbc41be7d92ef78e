"""What an operator says about a RabbitMQ target."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from yarl import URL

from broker.engines.encryption import Encryption, chosen, context
from broker.model.role import Role
from ca.errors import Malformed
from ca.runtime.settings import SecretReference, parsed_by
from ca.runtime.settings import Settings as Base

_PATTERN = re.compile(r"(?:[A-Za-z0-9 _.:/#@~=+*?|()\[\]^$,{}<>-]|\\[.+*?|()\[\]^$\\{}-])*")
"""What a pattern may be written with: nothing by which one could leave the group it is put into, here as in PCRE."""

_ANYTHING = "zq7-f0c1_e9b5.a4d2"
"""A name nobody would choose: a pattern that lets it through lets everything through."""


def check_pattern(text: str) -> str:
    """A regular expression over the names of queues and exchanges; empty: none of them. Raises Malformed."""
    shown = ascii(text[:60])[1:-1]
    if len(text) > 200 or not _PATTERN.fullmatch(text) or "(?" in text or "(*" in text or "[:" in text:
        raise Malformed(
            f"`{shown}` is no pattern: expected at most 200 letters, digits and signs of a plain regular expression"
        )
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise Malformed(f"`{shown}` is no regular expression") from error
    return text


def parse_management(text: str) -> URL:
    """The address of the management API: `https`, or `http` at an address on loopback. Raises Malformed."""
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise Malformed("the management API needs an address as `https://host:15671`") from error
    if url.scheme not in {"http", "https"} or not url.host or not port or url.user or url.password:
        raise Malformed("the management API needs an address as `https://host:15671`, without a user in it")
    if url.scheme == "http" and chosen(None, [url.host]) != "off":
        raise Malformed("the management API is asked over `https`; `http` only at an address on loopback")
    if url.query_string or url.fragment or not url.path.isascii():
        raise Malformed("the management API needs an address without a query")
    return url.with_path(url.path.rstrip("/") + "/")


Pattern = Annotated[str, parsed_by(check_pattern)]


class Settings(Base):
    """One target of kind `rabbitmq`.

    `management` is where we work, `host` and `port` are where agents log in; `tls` is told to them. Left out it is
    `verify`, and `off` where `host` is an address on loopback. `tls_ca` is for both.
    """

    kind: Literal["rabbitmq"] = "rabbitmq"
    management: Annotated[URL, parsed_by(parse_management)]
    user: str
    password: SecretReference
    host: str
    port: int | None = Field(default=None, gt=0, lt=65536)
    tls: Encryption | None = None
    tls_ca: Path | None = None
    connections: int = Field(default=8, ge=2, le=100)

    @property
    def encryption(self) -> Encryption:
        """Of agents' connections: as it was said, or what is safe without a word."""
        return chosen(self.tls, [self.host])

    @property
    def amqp_port(self) -> int:
        """As it was said, or the usual one."""
        return self.port or (5672 if self.encryption == "off" else 5671)

    def agents_tls(self) -> ssl.SSLContext | None:
        """What a client of ours speaks at the agents' port."""
        return context(self.encryption, self.tls_ca)

    def our_tls(self) -> ssl.SSLContext | None:
        """The same at the management API: verified, whatever agents are told."""
        return context("verify" if self.management.scheme == "https" else "off", self.tls_ca)


class Rights(Base):
    """Permissions in one virtual host; each pattern must match a whole name."""

    vhost: str = Field(min_length=1, max_length=200)
    configure: Pattern = ""
    write: Pattern = ""
    read: Pattern = ""


class TopicRights(Base):
    """Which routing keys may be published to, and bound from, one topic exchange."""

    vhost: str = Field(min_length=1, max_length=200)
    exchange: str = Field(min_length=1, max_length=200)
    write: Pattern = ""
    read: Pattern = ""


class RoleSettings(Base):
    """What a role of such a target says. A pattern that lets every name through is refused without `everything`."""

    permissions: tuple[Rights, ...] = Field(min_length=1)
    topics: tuple[TopicRights, ...] = ()
    sessions: int = Field(default=10, ge=1, le=1000)
    everything: bool = False

    @model_validator(mode="after")
    def _meant(self) -> Self:
        """Refuse `.*` without a word, and a virtual host named twice."""
        places = [right.vhost for right in self.permissions]
        if len(set(places)) != len(places):
            raise ValueError("a virtual host stands in `permissions` twice")
        if any(topic.vhost not in places for topic in self.topics):
            raise ValueError("a topic's virtual host stands in no line of `permissions`")
        wide = any(
            re.search(anchored(pattern).replace(r"\z", r"\Z"), _ANYTHING)
            for right in self.permissions
            for pattern in (right.configure, right.write, right.read)
        )
        if wide and not self.everything:
            raise ValueError("a pattern that matches every name needs `everything: true` beside it")
        return self


def anchored(pattern: str) -> str:
    """As RabbitMQ is told: it searches, and `$` would let a line break at the end of a name pass."""
    return rf"\A(?:{pattern})\z" if pattern else "^$"


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    value: dict[str, Any] = dict(role.settings)
    for key in ("permissions", "topics"):
        if isinstance(value.get(key), list):
            value[key] = tuple(value[key])
    try:
        return RoleSettings.model_validate(value)
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` needs `permissions`, and may have `topics`, `sessions` and `everything`"
        ) from error
