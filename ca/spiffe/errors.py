"""What is refused because it does not prove what it says."""

from __future__ import annotations

from ca.errors import Unauthenticated


class Untrusted(Unauthenticated):
    """A certificate or token was readable and does not hold.

    Never raised for bytes that can't be read at all: that is `Malformed`.
    """

    code = "untrusted"


class Revoked(Untrusted):
    """A certificate that would hold, had its own issuer not taken it back."""

    code = "revoked"
