"""Broker ⇄ server: the identities of tasks, granted under names of the broker's own (traps 21).

A grant is known by a *name* that is never used twice, and not by its task: so what became of one grant never stands in
the way of the next one for the same task, and a name can be taken for good before its grant arrives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from attestor._proto import task_pb2 as pb
from attestor.instance import parse_id
from attestor.wire.task import SERVICE
from ca.errors import Malformed
from ca.runtime.clock import instant, micros
from ca.spiffe.id import SpiffeId

GRANT = f"/{SERVICE}/Grant"  # unary, as all of them
WITHDRAW = f"/{SERVICE}/Withdraw"
LIST = f"/{SERVICE}/List"
CONFIRM = f"/{SERVICE}/Confirm"

TASK_PATH = "/task/"
LONGEST_LEAF = timedelta(minutes=5)
"""How long a certificate of a task lives at most: who reads no revocation lists believes it no longer."""
LONGEST_TOKEN = timedelta(seconds=60)
"""How long a token of a task lives at most: no list names it (traps 34)."""
MOST_AT_ONCE = 1000
"""Names in one message."""
MOST_OF_INSTANCE = 64

_NAME = re.compile(r"[a-z0-9_]{1,64}")
_TASK = re.compile(r"[a-z0-9]{1,64}")
_LATEST = 253402300799  # the last second of the year 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An identity asked for. It ends at `ends_at`, in whole seconds; later than `grant_by` nothing is granted."""

    name: str
    task: str
    instance: str
    ends_at: datetime
    grant_by: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What it is called; `made` is False when this very grant was there already."""

    id: SpiffeId
    made: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """The end of one; with `close` it is not listed any more."""

    name: str
    close: bool = False


def parse_name(text: str) -> str:
    """Read a name. Raises Malformed."""
    if not _NAME.fullmatch(text):
        raise Malformed("the name of a grant must be 1 to 64 lower-case letters, digits and `_`")
    return text


def encode_grant(one: Grant) -> pb.GrantRequest:
    """For a broker."""
    return pb.GrantRequest(
        name=one.name,
        task=one.task,
        instance=one.instance,
        ends_at=int(one.ends_at.timestamp()),
        grant_by=micros(one.grant_by),
    )


def decode_grant(message: pb.GrantRequest) -> Grant:
    """For a server. Raises Malformed."""
    if not _TASK.fullmatch(message.task):
        raise Malformed("a task's id must be 1 to 64 lower-case letters and digits")
    if not 0 < message.ends_at <= _LATEST or not 0 < message.grant_by <= _LATEST * 1_000_000:
        raise Malformed("a grant needs the second in which it ends, and the moment after which it is too late")
    return Grant(
        name=parse_name(message.name),
        task=message.task,
        instance=parse_id(message.instance),
        ends_at=datetime.fromtimestamp(message.ends_at, UTC),
        grant_by=instant(message.grant_by),
    )


def encode_granted(one: Granted) -> pb.GrantResponse:
    """For a server."""
    return pb.GrantResponse(spiffe_id=str(one.id), made=one.made)


def decode_granted(message: pb.GrantResponse) -> Granted:
    """For a broker. Raises Malformed."""
    return Granted(id=SpiffeId.parse(message.spiffe_id), made=message.made)


def encode_withdrawal(one: Withdrawal) -> pb.WithdrawRequest:
    """For a broker."""
    return pb.WithdrawRequest(name=one.name, close=one.close)


def decode_withdrawal(message: pb.WithdrawRequest) -> Withdrawal:
    """For a server. Raises Malformed."""
    return Withdrawal(name=parse_name(message.name), close=message.close)


def encode_list(prefix: str, after: str) -> pb.ListRequest:
    """For a broker."""
    return pb.ListRequest(prefix=prefix, after=after)


def decode_list(message: pb.ListRequest) -> tuple[str, str]:
    """For a server: what names begin with, and the name after which to go on. Raises Malformed."""
    after = parse_name(message.after) if message.after else ""
    return parse_name(message.prefix), after


def encode_names(names: Iterable[str]) -> pb.ConfirmRequest:
    """For a broker."""
    return pb.ConfirmRequest(names=names)


def decode_names(message: pb.ConfirmRequest) -> tuple[str, ...]:
    """For a server. Raises Malformed."""
    if len(message.names) > MOST_AT_ONCE:
        raise Malformed(f"not more than {MOST_AT_ONCE} grants can be confirmed at once")
    return tuple(parse_name(one) for one in message.names)
