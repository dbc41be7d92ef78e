"""How a machine proves itself: one file per method, prover and verifier side by side."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NODE_METHODS: Mapping[str, str] = MappingProxyType({"join_token": "attestor.methods.node.join_token"})
"""The methods a node may name in its first message; each module has a `Prover` and a `Verifier`."""
