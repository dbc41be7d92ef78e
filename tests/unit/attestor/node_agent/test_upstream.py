"""What the server's word does to what is held."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from attestor.node_agent.admission import Address
from attestor.node_agent.upstream import Upstream
from attestor.wire.node import BundleDocument, Update
from ca.runtime.process import Wake
from ca.spiffe.bundle import Bundle
from ca.spiffe.id import TrustDomain
from fakes.clock import ManualClock

OWN, FOREIGN = TrustDomain.parse("example.org"), TrustDomain.parse("partner.example")


class Told:
    """Holdings that remember what they were told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.heard.append(name)


def bundle(trust_domain: TrustDomain, sequence: int) -> BundleDocument:
    """A bundle with that number."""
    document = Bundle(trust_domain=trust_domain, sequence=sequence).to_jwks()
    return BundleDocument(trust_domain=trust_domain, document=document)


def test_only_our_own_keys_make_tokens_be_signed_anew() -> None:
    """A federated domain that changes each minute costs everybody a message, and nobody a signature."""
    told: Any = Told()
    parts: Any = dict.fromkeys(("identity_file", "joining", "part"))
    upstream = Upstream(
        Address("127.0.0.1", 1, OWN), holdings=told, clock=ManualClock(), wake=Wake(), report=Wake(), **parts
    )
    update = Update(
        bundles=(bundle(OWN, 1), bundle(FOREIGN, 1)),
        rules_version="r",
        live_counter=0,
        ended=frozenset(),
        withdrawn_authorities=frozenset(),
        beat=timedelta(seconds=1),
        grace=timedelta(seconds=15),
    )
    upstream._apply(update)
    told.heard.clear()
    foreign = replace(update, bundles=(bundle(OWN, 1), bundle(FOREIGN, 2)))
    upstream._apply(foreign)
    assert told.heard == ["bar", "announce"]
    told.heard.clear()
    upstream._apply(replace(foreign, bundles=(bundle(OWN, 2), bundle(FOREIGN, 2))))
    assert told.heard == ["forget_tokens", "bar", "announce"]
    told.heard.clear()
    upstream._apply(
        replace(foreign, bundles=(bundle(OWN, 2), bundle(FOREIGN, 2)), withdrawn_authorities=frozenset({b"k"}))
    )
    assert told.heard[0] == "forget_tokens"
