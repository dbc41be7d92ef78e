"""A source of TLS material in the hand of the test."""

from __future__ import annotations

from dataclasses import dataclass, field

from attestor.client.errors import NoIdentity
from ca.runtime.clock import Clock
from ca.spiffe.bundle import BundleSet
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Svid


@dataclass
class Material:
    """What a process shows and whom it believes; change either while it is used."""

    current: X509Svid | None
    bundles: BundleSet
    clock: Clock
    revocations: RevocationLists = field(default_factory=RevocationLists)

    @property
    def svid(self) -> X509Svid:
        """The identity to show."""
        if self.current is None:
            raise NoIdentity("this process has no identity")
        return self.current
