"""Bundles: the public keys a trust domain vouches with, and the JWK Set they travel in.

SPIFFE_Trust_Domain_and_Bundle.md sections 3 to 5, and section 6 of the three SVID documents. Strict to write; when
reading, an element this reader has no use for is left out where the standard says so, which can only take trust away.
A bundle belongs to one trust domain, and a `BundleSet` never pools them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.errors import Malformed
from ca.spiffe import der, jwk, strict_json
from ca.spiffe.id import TrustDomain
from ca.spiffe.jwk import PublicKey

__all__ = ["LONGEST_BUNDLE", "Bundle", "BundleSet", "PublicKey"]

LONGEST_BUNDLE = 1024 * 1024
LONGEST_MAP = 8 * LONGEST_BUNDLE
MOST_KEYS = 256
"""Keys of one kind in one bundle; a domain in the middle of a rotation has a handful."""

_LARGEST_SEQUENCE = 2**64 - 1
_LARGEST_HINT = 366 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The authorities of one trust domain; with none of a kind, nothing of that kind is trusted (TB-4)."""

    trust_domain: TrustDomain
    x509_authorities: tuple[x509.Certificate, ...] = ()
    jwt_authorities: Mapping[str, PublicKey] = field(default_factory=dict)
    wit_authorities: Mapping[str, PublicKey] = field(default_factory=dict)
    sequence: int | None = None
    refresh_hint: timedelta | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x509_authorities", tuple(dict.fromkeys(self.x509_authorities)))
        object.__setattr__(self, "jwt_authorities", MappingProxyType(dict(self.jwt_authorities)))
        object.__setattr__(self, "wit_authorities", MappingProxyType(dict(self.wit_authorities)))
        if not all(map(jwk.is_authority, self.x509_authorities)):
            raise Malformed(f"the bundle of `{self.trust_domain}` holds a certificate that is no authority's")
        for kind, keys in (("JWT", self.jwt_authorities), ("WIT", self.wit_authorities)):
            if "" in keys or not all(map(jwk.fits, keys.values())):
                raise Malformed(
                    f"the bundle of `{self.trust_domain}` holds a {kind} authority without a key id or fit key"
                )
        if not self.jwt_authorities.keys().isdisjoint(self.wit_authorities):
            raise Malformed(f"the bundle of `{self.trust_domain}` holds one `kid` for a JWT and for a WIT authority")
        hint = 0 if self.refresh_hint is None else self.refresh_hint.total_seconds()
        if not 0 <= (self.sequence or 0) <= _LARGEST_SEQUENCE or not 0 <= hint <= _LARGEST_HINT:
            raise Malformed(f"the bundle of `{self.trust_domain}` has a number that no reader would take")

    @classmethod
    def from_jwks(cls, trust_domain: TrustDomain, data: bytes) -> Bundle:
        """Read a SPIFFE bundle or a plain JWK Set.

        Raises:
            Malformed: not a JWK Set, too long, or two keys share one id.
        """
        what = f"the bundle of `{trust_domain}`"
        return cls._from_document(trust_domain, strict_json.read_object(data, what, LONGEST_BUNDLE))

    @classmethod
    def from_der(cls, trust_domain: TrustDomain, data: bytes) -> Bundle:
        """Read X.509 authorities as the Workload API carries them: concatenated DER.

        Raises:
            Malformed: not that, or one of them is no authority.
        """
        what = f"the bundle of `{trust_domain}`"
        if len(data) > LONGEST_BUNDLE:
            raise Malformed(f"{what} is longer than {LONGEST_BUNDLE} bytes")
        certificates = tuple(der.certificate(piece, what) for piece in der.split(data, what, MOST_KEYS))
        return cls(trust_domain=trust_domain, x509_authorities=certificates)

    def to_jwks(self) -> bytes:
        """The SPIFFE bundle: every key, the sequence and the refresh hint where there are any."""
        return json.dumps(self._document(), separators=(",", ":")).encode()

    def jwt_jwks(self) -> bytes:
        """Only the JWT authorities, as the Workload API wants them (WL-15)."""
        return json.dumps({"keys": self._jwt_keys()}, separators=(",", ":")).encode()

    def wit_jwks(self) -> bytes:
        """Only the WIT authorities, as the Workload API wants them."""
        return json.dumps({"keys": self._wit_keys()}, separators=(",", ":")).encode()

    def x509_der(self) -> bytes:
        """Only the X.509 authorities, in concatenated DER."""
        return _concatenated(self.x509_authorities)

    def _document(self) -> dict[str, Any]:
        x509_keys = map(jwk.of_certificate, self.x509_authorities)
        document: dict[str, Any] = {"keys": [*x509_keys, *self._jwt_keys(), *self._wit_keys()]}
        if self.sequence is not None:
            document["spiffe_sequence"] = self.sequence
        if self.refresh_hint is not None:
            document["spiffe_refresh_hint"] = int(self.refresh_hint.total_seconds())
        return document

    def _jwt_keys(self) -> list[dict[str, Any]]:
        return [jwk.of_jwt_key(key_id, key) for key_id, key in self.jwt_authorities.items()]

    def _wit_keys(self) -> list[dict[str, Any]]:
        return [jwk.of_wit_key(key_id, key) for key_id, key in self.wit_authorities.items()]

    @classmethod
    def _from_document(cls, trust_domain: TrustDomain, document: Mapping[str, Any]) -> Bundle:
        what = f"the bundle of `{trust_domain}`"
        keys = document.get("keys")
        if not isinstance(keys, list) or not all(isinstance(each, dict) for each in keys):
            raise Malformed(f"{what} has no `keys`: expected an array of JWKs")
        hint = _integer(document, "spiffe_refresh_hint", _LARGEST_HINT, what)
        return cls(
            trust_domain=trust_domain,
            x509_authorities=_x509_authorities(keys, what),
            jwt_authorities=_token_authorities(keys, jwk.JWT_USE, what),
            wit_authorities=_token_authorities(keys, jwk.WIT_USE, what),
            sequence=_integer(document, "spiffe_sequence", _LARGEST_SEQUENCE, what),
            refresh_hint=None if hint is None else timedelta(seconds=hint),
        )


@dataclass(frozen=True, slots=True)
class BundleSet:
    """Bundles by their trust domain: what a verifier is given."""

    _bundles: Mapping[TrustDomain, Bundle] = field(default_factory=dict)

    @classmethod
    def of(cls, *bundles: Bundle) -> BundleSet:
        """Put bundles of different trust domains side by side."""
        by_domain = {bundle.trust_domain: bundle for bundle in bundles}
        if len(by_domain) != len(bundles):
            raise Malformed("a trust domain has one bundle, and two were given")
        return cls(MappingProxyType(by_domain))

    @classmethod
    def from_json(cls, data: bytes) -> BundleSet:
        """Read a SPIFFE Bundle Map (section 5).

        Raises:
            Malformed: not that, a trust domain is named twice, or one of its bundles can't be read.
        """
        domains = strict_json.read_object(data, "the bundle map", LONGEST_MAP).get("trust_domains")
        if not isinstance(domains, dict) or not all(isinstance(each, dict) for each in domains.values()):
            raise Malformed("the bundle map has no `trust_domains`: expected an object of bundles")
        return cls.of(*(Bundle._from_document(_domain(name), each) for name, each in domains.items()))  # noqa: SLF001

    def to_json(self) -> bytes:
        """The SPIFFE Bundle Map; the bundles in it carry no refresh hint of their own."""
        domains = {bundle.trust_domain.name: bundle._document() for bundle in self}  # noqa: SLF001
        for document in domains.values():
            document.pop("spiffe_refresh_hint", None)
        return json.dumps({"trust_domains": domains}, separators=(",", ":")).encode()

    def get(self, trust_domain: TrustDomain) -> Bundle | None:
        """The bundle of exactly this trust domain."""
        return self._bundles.get(trust_domain)

    def with_(self, bundle: Bundle) -> BundleSet:
        """The same set with `bundle` in the place of its trust domain's former one."""
        return BundleSet(MappingProxyType({**self._bundles, bundle.trust_domain: bundle}))

    def without(self, trust_domain: TrustDomain) -> BundleSet:
        """The same set with nothing of `trust_domain`."""
        return BundleSet.of(*(bundle for bundle in self if bundle.trust_domain != trust_domain))

    def anchors_der(self) -> tuple[bytes, ...]:
        """Every X.509 authority in DER, for a TLS stack that must be told whom to let show a certificate at all.

        Never for deciding: this is the pool that `x509svid.verify` does not look at.
        """
        encoding = serialization.Encoding.DER
        return tuple(each.public_bytes(encoding) for bundle in self for each in bundle.x509_authorities)

    def __iter__(self) -> Iterator[Bundle]:
        return iter(self._bundles.values())

    def __len__(self) -> int:
        return len(self._bundles)


def _domain(name: str) -> TrustDomain:
    """A member's name in a bundle map is the bare name, never a SPIFFE ID."""
    if "/" in name:
        raise Malformed("a bundle map names each trust domain without a scheme")
    return TrustDomain.parse(name)


def _integer(document: Mapping[str, Any], key: str, largest: int, what: str) -> int | None:
    value = document.get(key)
    if value is None and key not in document:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise Malformed(f"{what} has a bad `{key}`: expected a whole number from 0 to {largest}")
    return value


def _x509_authorities(keys: list[dict[str, Any]], what: str) -> tuple[x509.Certificate, ...]:
    elements = [each for each in keys if each.get("use") == jwk.X509_USE]
    if len(elements) > MOST_KEYS:
        raise Malformed(f"{what} holds more than {MOST_KEYS} X.509 authorities")
    return tuple(found for found in map(jwk.read_certificate, elements) if found is not None)


def _token_authorities(keys: list[dict[str, Any]], use: str, what: str) -> dict[str, PublicKey]:
    elements = [each for each in keys if each.get("use") == use]
    if len(elements) > MOST_KEYS:
        raise Malformed(f"{what} holds more than {MOST_KEYS} keys of the use `{use}`")
    authorities: dict[str, PublicKey] = {}
    for element in elements:
        key_id, key = element.get("kid"), jwk.read_key(element)
        if not isinstance(key_id, str) or not key_id or key is None:
            continue
        if authorities.setdefault(key_id, key) != key:
            raise Malformed(f"{what} holds two different keys under one `kid`")
    return authorities


@lru_cache(256)
def _concatenated(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """Made once and not for each process that is told."""
    return b"".join(each.public_bytes(serialization.Encoding.DER) for each in certificates)
