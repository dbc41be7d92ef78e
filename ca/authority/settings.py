"""What an operator may say about a trust domain's authority."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from ca.errors import Malformed
from ca.profiles.prepared import Kind
from ca.spiffe.id import TrustDomain

MAIN_SERVER = "main"
"""The name of a server that is alone over its store; migration 0002 gave it to what was there."""

SHARE = 6
"""An authority is replaced with a sixth of its life left, so what it signs may live no longer than that sixth."""

_LONGEST_ORGANISATION = 64  # RFC 5280, ub-organization-name
_COUNTRY = re.compile(r"[A-Z]{2}")
_SERVER = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_ISSUER = re.compile(r"https://[a-z0-9.-]{1,253}(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]{1,100}){0,10}")
_ADDRESS = re.compile(r"(?:.*\.)?[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySettings:
    """Lives and names. Raises Malformed when what is signed last would be cut short by its signer's end.

    `server` names this server among those over one store; it must stay the same, because its keys hang on it. Peers are
    told of a new authority for at least `propagation` before it signs; when another server does not say that it has
    told them as well, for `patience`. `jwt_issuer` is the `iss` of JWT-SVIDs, an `https` address; empty: they have
    none.
    """

    trust_domain: TrustDomain
    server: str = MAIN_SERVER
    root_ttl: timedelta = timedelta(days=3650)
    ca_ttl: timedelta = timedelta(days=30)
    x509_ttl: timedelta = timedelta(hours=1)
    jwt_ttl: timedelta = timedelta(minutes=5)
    wit_ttl: timedelta = timedelta(minutes=5)
    refresh_hint: timedelta = timedelta(minutes=5)
    propagation: timedelta = timedelta(seconds=30)
    patience: timedelta = timedelta(minutes=5)
    organisation: str = "Sojourn"
    country: str = ""
    jwt_issuer: str = ""

    def __post_init__(self) -> None:
        shares = (("root_ttl", "ca_ttl"), ("ca_ttl", "x509_ttl"), ("ca_ttl", "jwt_ttl"), ("ca_ttl", "wit_ttl"))
        for above, below in shares:
            if getattr(self, below) * SHARE > getattr(self, above):
                raise Malformed(f"`{below}` is too long: expected at most a sixth of `{above}`")
        for name in ("x509_ttl", "jwt_ttl", "wit_ttl", "refresh_hint"):
            if getattr(self, name) < timedelta(seconds=1):
                raise Malformed(f"`{name}` is too short: expected at least one second")
        if not timedelta(0) <= self.propagation <= self.patience:
            raise Malformed("`propagation` can't be used: expected none to as long as `patience`")
        if not _SERVER.fullmatch(self.server):
            raise Malformed("`server` can't be used: expected up to 63 of `a-z`, `0-9` and inner `.` and `-`")
        if len(self.organisation) > _LONGEST_ORGANISATION or not self.organisation.isprintable():
            raise Malformed(
                f"`organisation` can't be used: expected up to {_LONGEST_ORGANISATION} printable characters"
            )
        if self.jwt_issuer and not _ISSUER.fullmatch(self.jwt_issuer):
            raise Malformed("`jwt_issuer` can't be used: expected `https://host`, perhaps a port and a plain path")
        if self.country and not _COUNTRY.fullmatch(self.country):
            raise Malformed("`country` can't be used: expected two upper-case letters, as in ISO 3166")

    @property
    def longest_x509_ttl(self) -> timedelta:
        """The longest life of a leaf that an active issuing authority can give on every one of its days."""
        return self.ca_ttl / SHARE

    @property
    def wait(self) -> timedelta:
        """`propagation`, but no more than a sixth of an authority's life, or one that is short would end unused."""
        return min(self.propagation, self.ca_ttl / SHARE)

    @property
    def longest_wait(self) -> timedelta:
        """`patience`, bounded in the same way."""
        return min(self.patience, self.ca_ttl / SHARE)

    def ttl(self, kind: Kind) -> timedelta:
        """How long an authority of this kind lives."""
        return self.root_ttl if kind is Kind.ROOT else self.ca_ttl


def name_warnings(trust_domain: TrustDomain) -> tuple[str, ...]:
    """What is legal in a trust domain's name and yet refused by some peers (traps 40)."""
    name = trust_domain.name
    findings = (
        ("_" in name, "holds `_`, which Java does not read as a host name"),
        (_ADDRESS.fullmatch(name) is not None, "looks like an IP address, which Go treats as one"),
        (".." in name, "holds `..`, which is no host name to Java and Go"),
        (
            name[0] in ".-" or name[-1] in ".-",
            "begins or ends with a dot or a dash, which is no host name to most peers",
        ),
    )
    return tuple(f"the trust domain `{name}` {words}" for found, words in findings if found)
