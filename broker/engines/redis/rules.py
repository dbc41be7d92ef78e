"""What a role may say of keys, channels and commands, and the ACL rules that are made of it.

Every token is judged by itself. A leased user gets nothing by default; the categories `@admin` and `@dangerous` are
taken away after everything else, and only a command that is named itself comes back. What would let its holder make
another user, change the server or see others' commands is never given, by any word.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from broker.model.role import Role
from ca.errors import Malformed
from ca.runtime.settings import Settings as Base
from ca.runtime.settings import parsed_by

_PATTERN = re.compile(r"[\x21-\x7e]{1,200}")
_TOKEN = re.compile(r"([+-])(@)?([a-z][a-z0-9_.-]{0,40})(\|[a-z][a-z0-9-]{0,40})?")

NEVER = frozenset({
    *("acl", "client", "cluster", "config", "debug", "latency", "module", "slowlog", "pfdebug", "pfselftest"),
    *("client|kill", "client|list", "client|pause", "client|unpause", "client|unblock", "client|no-evict"),
    *("monitor", "sync", "psync", "replconf", "replicaof", "slaveof", "failover", "migrate"),
    *("bgrewriteaof", "bgsave", "save", "shutdown", "swapdb", "function|restore"),
})  # fmt: skip
"""Commands no role can name."""

HARMLESS = frozenset({"acl|whoami", "acl|cat", "cluster|slots", "cluster|shards", "cluster|keyslot"})
"""Parts of those that clients ask for and that give nothing."""


def _is_never(name: str, part: str) -> bool:
    whole = name + part
    if name == "client" and part:
        return whole in NEVER
    return whole not in HARMLESS and (name in NEVER or whole in NEVER)


def _pattern(text: str) -> str:
    """A pattern of keys or channels, as Redis matches it. Raises Malformed."""
    if not _PATTERN.fullmatch(text):
        raise Malformed(f"`{text[:40]}` is no pattern: expected 1 to 200 printable characters without a space")
    return text


def _token(text: str) -> str:
    """`+get`, `-flushdb`, `+@read`, `+config|get`. Raises Malformed."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise Malformed(f"`{text[:40]}` is no rule of a command: expected `+name`, `-name`, `+@category`, `-@category`")
    sign, category, name, part = match.groups()
    if sign == "-":
        return text
    if category and part:
        raise Malformed(f"`{text}` names a part of a category")
    if category and name in {"admin", "dangerous"}:
        raise Malformed(f"`{text}` is given to no role: name the commands that are needed")
    if not category and _is_never(name, part or ""):
        raise Malformed(f"`{text}` is given to no role: with it a holder could outlive its lease, or be somebody else")
    return text


Pattern = Annotated[str, parsed_by(_pattern)]


class RoleSettings(Base):
    """What a role of such a target says: which keys, which channels, which commands.

    `+@all` needs `everything: true` beside it; even then nothing of `@admin` and `@dangerous` is in it.
    """

    keys: tuple[Pattern, ...] = ()
    read_keys: tuple[Pattern, ...] = ()
    write_keys: tuple[Pattern, ...] = ()
    channels: tuple[Pattern, ...] = ()
    commands: tuple[Annotated[str, parsed_by(_token)], ...] = Field(min_length=1)
    everything: bool = False

    @model_validator(mode="after")
    def _means_it(self) -> Self:
        if "+@all" in self.commands and not self.everything:
            raise ValueError("`+@all` needs `everything: true` beside it")
        if not any(token.startswith("+") for token in self.commands):
            raise ValueError("`commands` gives nothing: expected at least one token that begins with `+`")
        return self

    def rules(self) -> tuple[str, ...]:
        """The arguments of ACL SETUSER after `reset`, in the order that makes the wall hold."""
        broad = [token for token in self.commands if "@" in token]
        named = [token for token in self.commands if "@" not in token]
        return (
            *(f"~{pattern}" for pattern in self.keys),
            *(f"%R~{pattern}" for pattern in self.read_keys),
            *(f"%W~{pattern}" for pattern in self.write_keys),
            *(f"&{pattern}" for pattern in self.channels),
            *broad,
            "-@admin",
            "-@dangerous",
            *named,
        )


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    value = {name: tuple(said) if isinstance(said, list) else said for name, said in role.settings.items()}
    try:
        return RoleSettings.model_validate(value)
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` needs `commands`, and may have `keys`, `read_keys`, `write_keys`, `channels`"
        ) from error
