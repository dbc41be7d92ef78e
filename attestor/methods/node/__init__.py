"""How a machine proves itself: one file per method, prover and verifier side by side."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NODE_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "join_token": "attestor.methods.node.join_token",
        "k8s_psat": "attestor.methods.node.k8s_psat",
        "oidc": "attestor.methods.node.oidc",
        "tpm": "attestor.methods.node.tpm",
        "x509pop": "attestor.methods.node.x509pop",
    }
)
"""The methods a node may name in its first message; each module has a `Prover` and a `Verifier`.

All but join tokens also have `ProverSettings` (its `method` is the name) and `VerifierSettings`.
"""
