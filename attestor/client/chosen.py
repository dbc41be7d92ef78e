"""One identity of several: for a process whose Workload API offers more than the one it is to be known by."""

from __future__ import annotations

from dataclasses import dataclass

from attestor.client.errors import NoIdentity
from attestor.client.source import X509Source
from ca.runtime.clock import Clock
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import SpiffeId
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Svid


@dataclass(frozen=True, slots=True)
class ChosenIdentity:
    """A source that shows the identity `id` and no other; an `X509Material`."""

    source: X509Source
    id: SpiffeId

    @property
    def clock(self) -> Clock:
        """The source's."""
        return self.source.clock

    @property
    def svid(self) -> X509Svid:
        """The newest SVID of this identity. Raises NoIdentity: the Workload API doesn't offer it."""
        for svid in self.source.svids:
            if svid.id == self.id:
                return svid
        offered = ", ".join(str(svid.id) for svid in self.source.svids) or "none"
        raise NoIdentity(f"the Workload API does not offer `{self.id}`, but: {offered}")

    @property
    def bundles(self) -> BundleSet:
        """The source's."""
        return self.source.bundles

    @property
    def revocations(self) -> RevocationLists:
        """The source's."""
        return self.source.revocations
