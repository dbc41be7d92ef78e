"""The node's own identity: kept on disk, so that a restart needs no new join token while it is valid.

One file holds chain, key and the bundle to know the server by; it is replaced whole, mode 0600. The key is not sealed:
whoever reads this file as this user could ask the running node agent for the same. A file that can't be read or has
expired is as good as none, and the node has to be proven anew.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.wire.node import NODE_PATH, Admission
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime import log
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.id import TrustDomain
from ca.spiffe.x509svid import X509Svid
from ca.tls import TlsMaterial

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """The node's SVID and the bundle of its own trust domain."""

    svid: X509Svid
    bundle: Bundle

    @classmethod
    def of(cls, admission: Admission, key: ec.EllipticCurvePrivateKey, trust_domain: TrustDomain) -> NodeIdentity:
        """What the server admitted this node as. Raises Malformed when that is not an identity of a node."""
        svid = X509Svid.parse(admission.chain, _key_der(key))
        bundle = Bundle.from_jwks(admission.bundle.trust_domain, admission.bundle.document)
        if svid.id != admission.id or bundle.trust_domain != trust_domain:
            raise Malformed("the attestor server admitted this node under a name that is not the certificate's")
        return cls(svid=svid, bundle=bundle)

    def __post_init__(self) -> None:
        domain = self.bundle.trust_domain
        if self.svid.id.trust_domain != domain or not self.svid.id.path.startswith(NODE_PATH):
            raise Malformed(f"`{self.svid.id}` is not the identity of a node of `{domain}`")

    @property
    def half_life(self) -> datetime:
        """When it is due to be replaced."""
        return self.svid.not_before + (self.svid.not_after - self.svid.not_before) / 2

    @property
    def authority(self) -> bytes:
        """The key id of the authority that signed it."""
        extension = self.svid.chain[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        return extension.value.key_identifier or b""

    def material(self) -> TlsMaterial:
        """What a connection to the server shows."""
        return TlsMaterial.of(self.svid, BundleSet.of(self.bundle))


class IdentityFile:
    """Where the identity rests."""

    def __init__(self, path: Path, trust_domain: TrustDomain) -> None:
        self._path = path
        self._trust_domain = trust_domain

    def load(self, now: datetime) -> NodeIdentity | None:
        """The identity, if there is one that is still valid. Raises Malformed when others may read its key."""
        if not self._path.exists():
            return None
        if self._path.stat().st_mode & 0o077:
            raise Malformed(f"the node's key in `{self._path}` can be read by others: expected mode 0600")
        try:
            document = json.loads(self._path.read_bytes())
            chain, key = (base64.b64decode(document[name], validate=True) for name in ("chain", "key"))
            bundle = Bundle.from_jwks(self._trust_domain, document["bundle"].encode())
            identity = NodeIdentity(svid=X509Svid.parse(chain, key), bundle=bundle)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, Problem) as error:
            _log.warning("the node's identity can't be read", file=str(self._path), error=error)
            return None
        return identity if now < identity.svid.not_after else None

    def save(self, identity: NodeIdentity) -> None:
        """Replace it. Raises Unavailable when the disk refuses."""
        document = {
            "chain": base64.b64encode(identity.svid.chain_der()).decode(),
            "key": base64.b64encode(identity.svid.key_der()).decode(),
            "bundle": identity.bundle.to_jwks().decode(),
        }
        beside = self._path.with_suffix(".new")
        try:
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor with its mode already set
                file.write(json.dumps(document).encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise Unavailable(f"can't keep the node's identity in `{self._path}`: {error.strerror}") from error

    def forget(self) -> None:
        """The server has withdrawn it."""
        self._path.unlink(missing_ok=True)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for the node; it never leaves this machine."""
    return ec.generate_private_key(ec.SECP256R1())


def csr_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request that only proves possession: the server decides what the certificate says."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _key_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
