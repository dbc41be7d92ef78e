"""`Prepared`: bytes that are ready to be signed, and what they say.

`Authority` signs nothing else, and a `Prepared` is made nowhere but in `ca.profiles`: each profile builds the bytes
itself from a request, so no caller can bring bytes of its own to a signature. What the facts beside the bytes claim is
not believed either: `ca.lint` reads the bytes again before they are signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Never

from ca.spiffe.id import SpiffeId, TrustDomain

BACKDATE = timedelta(seconds=30)
"""How far before `now` a validity begins: peers whose clock is a little behind accept a leaf at once."""


class Kind(StrEnum):
    """What is to be signed."""

    ROOT = "root"
    ISSUING = "issuing"
    LEAF = "leaf"
    JWT = "jwt"
    WIT = "wit"
    CRL = "crl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """What a profile must know of the authority that will sign.

    `subject` is the DER of its name, empty for a JWT key; `organisation` and `country` begin the subject of every
    X.509 leaf, either may be empty. `jwt_issuer` is the `iss` of JWT-SVIDs; empty: they have none.
    """

    trust_domain: TrustDomain
    key_id: bytes
    not_before: datetime
    not_after: datetime
    subject: bytes = b""
    organisation: str = ""
    country: str = ""
    jwt_issuer: str = ""


MAKER = object()
"""The key to the constructor. It is used in this package and nowhere else; tests/laws walks the tree to see to it."""


class Prepared:
    """Bytes ready to be signed by the authority `issuer_key_id`.

    `serial` is a certificate's serial number, the number a token's `jti` spells, or a revocation list's own; `revoked`
    is what a list names. `instance` is the attested instance the leaf is for, when there is one.
    """

    __slots__ = (
        "audience",
        "dns_names",
        "instance",
        "issuer_key_id",
        "kind",
        "not_after",
        "not_before",
        "revoked",
        "serial",
        "subject",
        "tbs",
    )
    kind: Kind
    tbs: bytes
    subject: SpiffeId
    serial: int
    issuer_key_id: bytes
    not_before: datetime
    not_after: datetime
    instance: str | None
    dns_names: tuple[str, ...]
    audience: tuple[str, ...]
    revoked: tuple[int, ...]

    def __init__(
        self,
        maker: object,
        *,
        kind: Kind,
        tbs: bytes,
        subject: SpiffeId,
        serial: int,
        issuer_key_id: bytes,
        not_before: datetime,
        not_after: datetime,
        instance: str | None = None,
        dns_names: tuple[str, ...] = (),
        audience: tuple[str, ...] = (),
        revoked: tuple[int, ...] = (),
    ) -> None:
        if maker is not MAKER:
            raise RuntimeError("a Prepared is made by a profile in ca.profiles")
        facts = {
            "kind": kind,
            "tbs": tbs,
            "subject": subject,
            "serial": serial,
            "issuer_key_id": issuer_key_id,
            "not_before": not_before,
            "not_after": not_after,
            "instance": instance,
            "dns_names": dns_names,
            "audience": audience,
            "revoked": revoked,
        }
        for name, value in facts.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"a Prepared is never changed, and so is its `{name}`")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError(f"a Prepared is never changed, and so is its `{name}`")

    def __reduce__(self) -> Never:
        raise TypeError("a Prepared is not to be pickled or copied")

    def __repr__(self) -> str:
        return f"Prepared({self.kind} {self.subject}, serial {self.serial:x}, until {self.not_after.isoformat()})"


def window(issuer: Issuer, now: datetime, ttl: timedelta) -> tuple[datetime, datetime]:
    """The validity of something signed at `now` for `ttl`, in whole seconds and not before its issuer's."""
    begin = max((now - BACKDATE).replace(microsecond=0), issuer.not_before)
    return begin, (now + ttl).replace(microsecond=0)
