"""Which SPIFFE IDs are meant: exactly one, all below a path, or all of a trust domain.

Matching is by whole segments: `/agent/**` has nothing to do with `/agents` (law: no prefix of text ever decides).
"""

from __future__ import annotations

from dataclasses import dataclass

from ca.spiffe.id import SpiffeId, TrustDomain

_BELOW = "/**"


@dataclass(frozen=True, slots=True)
class IdPattern:
    """One ID, or with `below` every ID that has at least one more segment than `path`."""

    trust_domain: TrustDomain
    path: str
    below: bool

    @classmethod
    def exactly(cls, spiffe_id: SpiffeId) -> IdPattern:
        """Only `spiffe_id`."""
        return cls(spiffe_id.trust_domain, spiffe_id.path, below=False)

    @classmethod
    def under(cls, spiffe_id: SpiffeId) -> IdPattern:
        """Everything below `spiffe_id`, itself not."""
        return cls(spiffe_id.trust_domain, spiffe_id.path, below=True)

    @classmethod
    def member_of(cls, domain: TrustDomain) -> IdPattern:
        """Every workload of `domain`; not the ID without a path, which stands for the domain itself."""
        return cls(domain, "", below=True)

    @classmethod
    def parse(cls, text: str) -> IdPattern:
        """Read `spiffe://td/a/b` (exactly), `spiffe://td/a/**` (below) or `spiffe://td/**` (the domain's members).

        Raises:
            Malformed: what stands before `/**` is not a SPIFFE ID, or a `*` stands anywhere else.
        """
        if text.endswith(_BELOW):
            return cls.under(SpiffeId.parse(text.removesuffix(_BELOW)))
        return cls.exactly(SpiffeId.parse(text))

    def matches(self, spiffe_id: SpiffeId) -> bool:
        """Whether `spiffe_id` is meant."""
        if spiffe_id.trust_domain != self.trust_domain:
            return False
        if self.below:
            return spiffe_id.path.startswith(self.path + "/")
        return spiffe_id.path == self.path

    def __str__(self) -> str:
        return str(SpiffeId(self.trust_domain, self.path)) + (_BELOW if self.below else "")
