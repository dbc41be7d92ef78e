"""What a client hears when it gets no answer, or not the one it wanted.

Problem                  ca/errors.py
├── Denied
│   └── NoIdentity       nothing says who this process is, or no longer; it may be said later
├── Malformed
│   └── Unsupported      the other end doesn't know this call: asking again can't help
└── Unavailable
    └── Unreachable      nothing listens there, or the connection broke
"""

from __future__ import annotations

from attestor.wire.answers import Unreachable, Unsupported
from ca.errors import Denied

__all__ = ["NoIdentity", "Unreachable", "Unsupported"]


class NoIdentity(Denied):
    """The Workload API has no identity for this process, or has withdrawn it."""

    code = "no-identity"
