"""Which key an authority of each kind has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ca.keys.protocol import Purpose
from ca.profiles.prepared import Kind

PURPOSES: Mapping[Kind, Purpose] = MappingProxyType(
    {
        Kind.ROOT: Purpose.SPIFFE_ROOT,
        Kind.ISSUING: Purpose.SPIFFE_X509,
        Kind.JWT: Purpose.SPIFFE_JWT,
        Kind.WIT: Purpose.SPIFFE_WIT,
    }
)
"""The kinds of authority, a signer before what it signs."""
