"""What every ground says of its targets alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def two_roles(read: Mapping[str, Any], write: Mapping[str, Any]) -> dict[str, Any]:
    """`readonly` and `readwrite`, with the engine's part of each."""
    return {
        "readonly": {"sensitivity": "internal", "ttl": "60s", "engine": read},
        "readwrite": {"sensitivity": "confidential", "ttl": "60s", "engine": write},
    }
