"""What a principal is called at its target: our prefix, the installation, and a keyed hash of the lease.

    sj_k3v9x0aa_7f2k6q0m1w9d4r8t5z3c

Everyone who may log in to a target may read its list of users, so a name must tell nothing: it is no lease id, and
without the installation's key nobody can compute it from one (traps 18). The installation is part of the prefix, so two
installations never mistake each other's principals for their own (traps 19). 32 characters fit every engine we plan.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from broker.model.ids import LeaseId

_HASH_LENGTH = 20
"""100 bits: two leases of one installation meet with a chance of 2^-40 after a billion of them."""

LONGEST = 32
"""MySQL's limit, the shortest among our targets."""


def prefix(installation: str) -> str:
    """What every name of one installation begins with."""
    if len(installation) != 8 or not installation.isascii() or not installation.isalnum():
        raise RuntimeError("an installation id is 8 letters and digits")
    return f"sj_{installation}_"


def name(installation: str, key: bytes, lease: LeaseId) -> str:
    """The name of the principal that belongs to `lease`."""
    digest = hmac.new(key, lease.encode(), hashlib.sha256).digest()
    return prefix(installation) + base64.b32encode(digest).decode().lower()[:_HASH_LENGTH]
