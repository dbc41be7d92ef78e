"""The server's own SVID, `spiffe://<trust domain>/sojourn/server`, and what TLS shows of it.

The chain it shows ends in the root itself. A verifier that has a bundle does not need it there; a node that joins has
nothing but the hash of the root's public key in its token, and must find a root to compare (traps 10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509 as certificates
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.instance import new_id
from attestor.server.issuance.leaves import Leaves
from attestor.wire.node import SERVER_PATH
from ca.errors import Unavailable
from ca.profiles.x509 import LeafRequest
from ca.spiffe.bundle import BundleSet
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Svid
from ca.tls import TlsMaterial


class OwnSvid:
    """Renewed by `tick` at half its life, whenever an authority changed, and when it was revoked."""

    def __init__(self, leaves: Leaves, ttl: timedelta, revocations: Callable[[], RevocationLists]) -> None:
        self._leaves, self._ttl, self._revocations = leaves, ttl, revocations
        self._path: tuple[certificates.Certificate, ...] = ()
        self._instance = new_id()
        self._material: TlsMaterial | None = None
        self._due: datetime | None = None
        leaves.authority.subscribe(self._changed)

    async def tick(self, now: datetime) -> None:
        """Renew when due."""
        if self._due is not None and now < self._due and self._revocations().revoked(self._path) is None:
            return
        authority = self._leaves.authority
        key = ec.generate_private_key(ec.SECP256R1())
        request = LeafRequest(
            id=authority.trust_domain.member(SERVER_PATH),
            public_key=key.public_key(),
            instance=self._instance,
            ttl=self._ttl,
        )
        (chain,) = await self._leaves.sign([request], now)
        secret = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        svid = X509Svid.parse(chain, secret)
        bundle = authority.bundle(now)
        root = _root(bundle.x509_authorities, authority.root_key_hash(now))
        self._material = TlsMaterial(
            chain_pem=svid.chain_pem() + root.public_bytes(serialization.Encoding.PEM),
            key_pem=svid.key_pem(),
            anchors_der=BundleSet.of(bundle).anchors_der(),
        )
        self._path = svid.chain
        self._due = now + (svid.not_after - now) / 2

    def material(self) -> TlsMaterial:
        """For each handshake. Raises Unavailable before the first tick."""
        if self._material is None:
            raise Unavailable("the server has no certificate of its own yet")
        return self._material

    def _changed(self) -> None:
        self._due = None


def _root(roots: tuple[certificates.Certificate, ...], key_hash: str) -> certificates.Certificate:
    for root in roots:
        spki = root.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if hashlib.sha256(spki).hexdigest() == key_hash:
            return root
    raise Unavailable("the root of the issuing authority is not in the bundle")
