"""The authority of one trust domain: the only place where an identity key is used.

    Prepared ─ lint ─ recorded, durable ─ signed

A root (ten years, or one kept elsewhere) signs the issuing authorities (thirty days), these sign leaves; JWT- and
WIT-SVIDs have keys of their own. Several servers over one store each have all of these. Peers are given the bundle: the
roots and token keys of every server that are trusted, with a number that grows whenever that changes. Which authority
is prepared, active or old is moved by `ca.rotation`, which also opens an `Authority`.
"""

from __future__ import annotations

from ca.authority.ring import KeyLost, Ring
from ca.authority.settings import AuthoritySettings
from ca.authority.signing import Authority

__all__ = ["Authority", "AuthoritySettings", "KeyLost", "Ring"]
