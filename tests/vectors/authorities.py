"""Who signs the vectors: two trust domains that trust one another, and one that only has the same names."""

from __future__ import annotations

from fakes.pki import TestAuthority
from fakes.wits import WitIssuer

ID = "spiffe://example.org/agent"
OWN = TestAuthority("example.org", seed="vectors")
FOREIGN = TestAuthority("foreign.org", seed="vectors")
IMPOSTOR = TestAuthority("example.org", seed="impostor")
WITS = WitIssuer(OWN, "vectors")
FOREIGN_WITS = WitIssuer(FOREIGN, "vectors")
