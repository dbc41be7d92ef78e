"""What a node agent found out about an instance, and what the server says it is entitled to, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from attestor import selector
from attestor._proto import node_pb2 as pb
from attestor.instance import Binding, Strength, parse_id
from attestor.selector import Selectors
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId

MOST_SELECTORS = 512
MOST_ANCESTORS = 64
_LATEST = 253402300799  # the last second of the year 9999
HIGHEST_COUNTER = 2**53
"""Of a live set: beyond it a counter is no longer the same number everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What a node agent found out about one instance."""

    instance: str
    selectors: Selectors
    strength: Strength
    counter: int
    ancestors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An identity an instance is entitled to; `audiences` empty means any.

    `federates_with` names the foreign trust domains whose bundles go with it (`*`: every one). Nothing of an identity
    that has an `ends_at` lives longer than that.
    """

    id: SpiffeId
    rule: str
    hint: str
    x509_ttl: timedelta
    jwt_ttl: timedelta
    bind: Binding
    dns_names: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """Why a rule that holds for this node gave nothing."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """All identities of an instance, in the order of the rules; the first is the default one."""

    instance: str
    identities: tuple[Identity, ...]
    unmatched: tuple[Unmatched, ...] = ()


def encode_attestation(one: Attestation) -> pb.Attestation:
    """For a node."""
    return pb.Attestation(
        instance=one.instance,
        selectors=selector.texts(one.selectors),
        strength=one.strength,
        ancestors=one.ancestors,
        counter=one.counter,
    )


def decode_attestation(message: pb.Attestation) -> Attestation:
    """For a server. Raises Malformed."""
    if len(message.selectors) > MOST_SELECTORS or len(message.ancestors) > MOST_ANCESTORS:
        raise Malformed(
            f"an attestation must not hold more than {MOST_SELECTORS} selectors and {MOST_ANCESTORS} ancestors"
        )
    if message.counter > HIGHEST_COUNTER:
        raise Malformed(f"the counter of a live set must not be above {HIGHEST_COUNTER}")
    return Attestation(
        instance=parse_id(message.instance),
        selectors=selector.parse_all(message.selectors),
        strength=Strength.parse(message.strength),
        ancestors=tuple(parse_id(one) for one in message.ancestors),
        counter=message.counter,
    )


def encode_entitlement(one: Entitlement) -> pb.Entitlement:
    """For a server."""
    return pb.Entitlement(
        instance=one.instance,
        identities=[_identity(identity) for identity in one.identities],
        unmatched=[pb.Unmatched(rule=rule.rule, reason=rule.reason) for rule in one.unmatched],
    )


def decode_entitlement(message: pb.Entitlement) -> Entitlement:
    """For a node. Raises Malformed."""
    return Entitlement(
        instance=parse_id(message.instance),
        identities=tuple(_read_identity(one) for one in message.identities),
        unmatched=tuple(Unmatched(rule=one.rule, reason=one.reason) for one in message.unmatched),
    )


def _identity(one: Identity) -> pb.Identity:
    return pb.Identity(
        spiffe_id=str(one.id),
        rule=one.rule,
        hint=one.hint,
        x509_ttl_seconds=_seconds(one.x509_ttl),
        jwt_ttl_seconds=_seconds(one.jwt_ttl),
        bind=one.bind,
        dns_names=one.dns_names,
        audiences=one.audiences,
        federates_with=one.federates_with,
        ends_at=0 if one.ends_at is None else int(one.ends_at.timestamp()),
    )


def _read_identity(message: pb.Identity) -> Identity:
    return Identity(
        id=SpiffeId.parse(message.spiffe_id),
        rule=message.rule,
        hint=message.hint,
        x509_ttl=timedelta(seconds=message.x509_ttl_seconds),
        jwt_ttl=timedelta(seconds=message.jwt_ttl_seconds),
        bind=Binding.parse(message.bind),
        dns_names=tuple(message.dns_names),
        audiences=tuple(message.audiences),
        federates_with=tuple(message.federates_with),
        ends_at=_moment(message.ends_at),
    )


def _moment(seconds: int) -> datetime | None:
    if seconds > _LATEST:
        raise Malformed("an identity's end is further away than time is told here")
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())
