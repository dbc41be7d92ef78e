"""A process is known by the identity it was told to use, or by none."""

from __future__ import annotations

import pytest

from attestor.client.chosen import ChosenIdentity
from attestor.client.errors import NoIdentity
from attestor.client.source import X509Source
from attestor.client.workload_api import X509Context
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import TrustDomain
from fakes.clock import ManualClock
from fakes.pki import NOON, TestAuthority

DOMAIN = TrustDomain.parse("example.org")


def _source(*paths: str) -> X509Source:
    authority = TestAuthority(DOMAIN)
    source = X509Source(ManualClock(NOON))
    svids = tuple(authority.leaf(path, now=NOON) for path in paths)
    source._followed.put(X509Context(svids=svids, bundles=BundleSet.of(authority.bundle())))
    return source


def test_the_identity_asked_for_is_shown_and_not_the_first() -> None:
    """The default identity stays the Workload API's; this process shows its own choice."""
    source = _source("/first", "/second")
    chosen = ChosenIdentity(source, DOMAIN.member("/second"))
    assert chosen.svid is source.svids[1]
    assert chosen.bundles is source.bundles
    assert chosen.clock is source.clock


def test_an_identity_that_is_not_offered_is_named_with_those_that_are() -> None:
    """Falling back to another identity would be a lie about who we are."""
    with pytest.raises(NoIdentity, match=r"`spiffe://example.org/third`, but: spiffe://example.org/first"):
        _ = ChosenIdentity(_source("/first"), DOMAIN.member("/third")).svid
