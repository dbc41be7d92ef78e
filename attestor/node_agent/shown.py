"""What a caller is shown of what is held: the answers of the Workload API, as values and messages.

A process sees its own trust domain and those its identities federate with; of the others not even the names. Within one
answer no hint stands twice, and the first entry is the default identity (WL-10, WL-17).
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from attestor.node_agent.held import Held, hinted
from attestor.wire import workload as wire
from attestor.wire.workload import X509Entry, X509Update
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.id import TrustDomain

EVERY_DOMAIN = "*"
"""How an identity says that it federates with every domain there is a bundle of."""

_REGISTERED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})


def bundles_of(held: Held, bundles: BundleSet, own: TrustDomain) -> BundleSet:
    """The own trust domain's bundle, and those that the identities of `held` federate with."""
    return BundleSet.of(*(one for one in bundles if one.trust_domain == own or _federates(held, one)))


def _federates(held: Held, bundle: Bundle) -> bool:
    wanted = {EVERY_DOMAIN, bundle.trust_domain.name}
    return any(not wanted.isdisjoint(one.federates_with) for one in held.identities)


def x509(held: Held, bundles: BundleSet, lists: tuple[bytes, ...]) -> Message:
    """All X.509-SVIDs, the default one first; `bundles` are those it may see."""
    seen = x509_bundles(bundles)
    entries = [
        X509Entry(id=identity.id, chain=leaf.chain, key=leaf.key, bundle=seen[identity.id.trust_domain], hint=hint)
        for identity, hint in hinted([one for one in held.identities if one.id in held.leaves])
        for leaf in (held.leaves[identity.id],)
    ]
    mine = {entry.id.trust_domain for entry in entries}
    federated = {domain: content for domain, content in seen.items() if domain not in mine}
    return wire.encode_x509(X509Update(svids=tuple(entries), crl=lists, federated=federated))


def x509_bundles(bundles: BundleSet) -> Mapping[TrustDomain, bytes]:
    """In concatenated DER."""
    return {one.trust_domain: one.x509_der() for one in bundles}


def jwt_bundles(bundles: BundleSet) -> Mapping[TrustDomain, bytes]:
    """As JWK Sets of JWT keys (WL-15)."""
    return {one.trust_domain: one.jwt_jwks() for one in bundles}


def wit_bundles(bundles: BundleSet) -> Mapping[TrustDomain, bytes]:
    """As JWK Sets of WIT keys (WL-12)."""
    return {one.trust_domain: one.wit_jwks() for one in bundles}


def claims(found: Mapping[str, object], allowed: frozenset[str] | None) -> dict[str, object]:
    """The claims of a token that may be told on: of a foreign domain's only those the standard or we know (WL-16).

    `allowed` is None for a token of the own domain. Whoever reads a claim of ours by its name must not be given that of
    a stranger.
    """
    return {name: value for name, value in found.items() if allowed is None or name in _REGISTERED | allowed}
