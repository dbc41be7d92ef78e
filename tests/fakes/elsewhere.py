"""A root that is kept elsewhere: somebody else's certificate and key, in files a test may replace."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from ca.authority.upstream import FileKey, Upstream
from ca.runtime.secret import Reference
from fakes.authority import BEGIN

_NOT_SAID = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}


class Corporate:
    """A corporate root; without a SPIFFE ID, as such a root has none."""

    def __init__(self, name: str = "Corporate Root", begin: datetime = BEGIN, **changes: Any) -> None:
        self.key = changes.get("key") or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=changes.get("ca", True), path_length=changes.get("path_length"))
        usage = x509.KeyUsage(
            digital_signature=False, key_cert_sign=changes.get("signs", True), crl_sign=True, **_NOT_SAID
        )
        builder = (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .subject_name(subject)
            .issuer_name(changes.get("issuer", subject))
            .public_key(self.key.public_key())
            .not_valid_before(begin - timedelta(days=365))
            .not_valid_after(begin + changes.get("life", timedelta(days=3650)))
            .add_extension(basic, critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        for extension in changes.get("extensions", ()):
            builder = builder.add_extension(extension, critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)


def put(folder: Path, root: Corporate, *anchors: Corporate, passphrase: str | None = None) -> Upstream:
    """Lay `root` into the folder, with more anchors, in the place of what is there."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    (folder / "root.pem").write_bytes(root.pem)
    (folder / "roots.pem").write_bytes(b"".join(each.pem for each in dict.fromkeys((root, *anchors))))
    descriptor = os.open(folder / "root.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    secret = None
    if passphrase is not None:
        (folder / "passphrase").write_text(passphrase)
        secret = Reference("file", str(folder / "passphrase"))
    key = FileKey(path=folder / "root.key", passphrase=secret)
    return Upstream(certificate=folder / "root.pem", bundle=folder / "roots.pem", key=key)
