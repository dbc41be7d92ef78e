"""One bundle endpoint, asked once: whom TLS lets answer, and what of the answer is taken (SPIFFE_Federation.md 5).

`https_web` is known by the host's name and the CAs of the web. `https_spiffe` is known by exactly one SPIFFE ID; whose
bundle proves it is the caller's to say. A redirect is followed and held to the same, and where it led is not kept.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from ca.errors import Malformed, Problem, Unavailable
from ca.runtime.fetch import Fetcher, Trust
from ca.spiffe.bundle import LONGEST_BUNDLE, Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.x509svid import X509Peer, verify
from ca.tls import TlsMaterial, client_context

DEADLINE = 10.0
REDIRECTS = 4
LONGEST_KEPT = 128 * 1024
"""Bytes of a bundle as it is given on: a federated domain must not fill the messages of ours."""


class Profile(StrEnum):
    """How the endpoint proves itself."""

    WEB = "https_web"
    SPIFFE = "https_spiffe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What an operator says of one: nothing of it is inferred from another part of it.

    `server` is the SPIFFE ID of `https_spiffe`, `bundle` a file with the bundle it is first checked with, or with that
    of its own trust domain when that is another one. `ca_file` holds the CAs of `https_web` if not the system's.
    """

    trust_domain: TrustDomain
    url: str
    profile: Profile
    server: SpiffeId | None = None
    bundle: Path | None = None
    ca_file: Path | None = None

    @property
    def self_serving(self) -> bool:
        """Whether the bundle that is fetched is the one by which the endpoint is known."""
        return self.server is not None and self.server.trust_domain == self.trust_domain


async def fetch(endpoint: Endpoint, known_by: Bundle | None, now: Callable[[], datetime]) -> Bundle:
    """The bundle it serves; `known_by` proves an endpoint of `https_spiffe`.

    Raises:
        Unavailable: it does not answer, answers too slowly, too much or with another status, or is somebody else.
        Malformed: what it answers is no bundle, or one longer than is given on.
    """
    refused: list[Problem] = []
    trust = _trust(endpoint, known_by, now, refused)
    async with Fetcher(trust, deadline=DEADLINE, limit=LONGEST_BUNDLE, redirects=REDIRECTS) as fetcher:
        try:
            answer = await fetcher.get(endpoint.url, {"Accept": "application/json"})
        except Unavailable as problem:
            if refused:
                raise Unavailable(f"the endpoint is not the one it should be: {refused[-1]}") from problem
            raise
    if answer.status != 200:
        raise Unavailable(f"the endpoint answers with status {answer.status}")
    bundle = await asyncio.to_thread(Bundle.from_jwks, endpoint.trust_domain, answer.body)
    check_size(bundle)
    return bundle


def check_size(bundle: Bundle) -> None:
    """Raises Malformed for a bundle that is longer than is given on."""
    if len(bundle.to_jwks()) > LONGEST_KEPT:
        raise Malformed(f"the bundle of `{bundle.trust_domain}` is longer than {LONGEST_KEPT} bytes")


def _trust(endpoint: Endpoint, known_by: Bundle | None, now: Callable[[], datetime], refused: list[Problem]) -> Trust:
    if endpoint.profile is Profile.WEB:
        return Trust(ca_file=endpoint.ca_file)
    assert endpoint.server is not None, "the settings saw to it"
    assert known_by is not None, "the caller found it"
    expected, bundles = endpoint.server, BundleSet.of(known_by)
    material = TlsMaterial(chain_pem=b"", key_pem=b"", anchors_der=bundles.anchors_der())

    def judge(chain: Sequence[bytes]) -> X509Peer:
        peer = verify(chain, bundles, now())
        if peer.id != expected:
            raise Untrusted(f"it is `{peer.id}`, where `{expected}` was expected")
        return peer

    def context() -> ssl.SSLContext:
        return client_context(material, judge, on_refusal=refused.append, alpn=["http/1.1"])

    return Trust(context=context)
