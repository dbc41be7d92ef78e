"""What every ground says of its targets alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def two_roles(read: Mapping[str, Any], write: Mapping[str, Any], ttl: str = "60s") -> dict[str, Any]:
    """`readonly` and `readwrite`, with the engine's part of each."""
    return {
        "readonly": {"sensitivity": "internal", "ttl": ttl, "engine": read},
        "readwrite": {"sensitivity": "confidential", "ttl": ttl, "engine": write},
    }
