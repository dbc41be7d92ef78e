"""What the contract of engines wants of a target: an engine, a role of it, the door agents knock at, and its traits."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from broker.engines.protocol import Issued
from broker.model.role import Role
from ca.runtime.clock import Clock


class Trait(StrEnum):
    """What is true of some kinds of target and not of others; the suite asks each engine whether it agrees."""

    LISTS = "it can tell which principals there are (`Listing`)"
    CLAIMS = "it can carry a claim (`Claimable`)"
    PROVES = "it can prove that it is set up right (`Checkable`)"
    ROTATES = "it can change the password of an account that is not ours (`Rotating`)"
    EXCLUSIVE = "one principal at a time: what it hands over is lent, not made (`EXCLUSIVE`)"
    CREATE_ONLY = "a name that is taken is never made again (`Making.CREATE_ONLY`)"
    AT_ONCE = "new access ends at once, and it is looked at (`NewAccess.AT_ONCE`)"
    CUTS = "open sessions are cut (`OpenSessions.CUT`)"
    EXPIRES = "new access ends at `until` by itself (`IfDown.TARGET_ENDS_IT`)"
    HANDS_OVER = "a secret is handed over"
    REPLACES = "a principal can be given another secret, and the old one is dead"
    RENEWS = "`until` can be moved ahead"
    JUDGES = "the target, or the engine right before it sends, refuses a create that is late"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One implementation: how a target of it is opened for one test, and its traits."""

    engine: str
    open: Callable[[], AbstractAsyncContextManager[Any]]
    traits: frozenset[Trait]


class Visit(Protocol):
    """Somebody who was let in."""

    async def answers(self) -> bool:
        """Whether the session is still open."""


class Place(Protocol):
    """One target."""

    engine: Any
    role: Role
    clock: Clock
    prefix: str

    async def login(self, issued: Issued) -> Visit | None:
        """Knock; None when the door stays shut."""


def new_prefix() -> str:
    """The prefix of an installation no other test has."""
    return f"sj_{secrets.token_hex(4)}_"
