"""A token a platform gave: what node attestation and direct attestation share, one file per kind of token."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PLATFORMS: Mapping[str, str] = MappingProxyType(
    {
        "k8s_token": "attestor.methods.platform.k8s_token",
        "oidc": "attestor.methods.platform.oidc",
    }
)
"""The methods of direct attestation; each module has a `Platform`."""
