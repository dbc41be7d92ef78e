"""Where a server listens, and as whom we log in; known without the driver."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from ca.runtime.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server."""

    host: str
    port: int
    user: str
    password: Callable[[], Secret] = field(repr=False)
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"
