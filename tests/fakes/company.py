"""A company's own CA, and machines with certificates of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestor.methods.node.x509pop import ProverSettings
from ca.runtime.secret import Reference

DAY = timedelta(days=1)
Key = Any


@dataclass(frozen=True)
class Machine:
    """What one has on its disk."""

    chain: Path
    key: Path

    def settings(self) -> ProverSettings:
        """Of its node agent."""
        return ProverSettings(method="x509pop", chain=self.chain, key=Reference("file", str(self.key)))


class Company:
    """A CA, and an intermediate below it."""

    def __init__(self, folder: Path, now: datetime, name: str = "company") -> None:
        self.folder, self.now, self.name = folder, now, name
        self.root_key, self.middle_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = self.certificate(f"{name} root", self.root_key, f"{name} root", self.root_key, authority=True)
        self.middle = self.certificate("middle", self.middle_key, f"{name} root", self.root_key, authority=True)
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(self.root.public_bytes(serialization.Encoding.PEM))

    def machine(self, name: str, key: Key | None = None, *, ends: timedelta = DAY, **rest: Any) -> Machine:
        """A machine with a certificate of the intermediate."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        leaf = self.certificate(name, key, "middle", self.middle_key, ends=ends, **rest)
        return self.write(name, key, leaf, self.middle)

    def write(self, name: str, key: Key, *chain: x509.Certificate) -> Machine:
        """Put it on a disk."""
        found = Machine(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        found.chain.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        found.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        found.key.chmod(0o600)
        return found

    def certificate(
        self,
        name: str,
        key: Key,
        issuer: str,
        signer: ec.EllipticCurvePrivateKey,
        *,
        authority: bool = False,
        signs: bool = True,
        ends: timedelta = 30 * DAY,
    ) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=signs, content_commitment=False, key_encipherment=not signs, data_encipherment=False,
            key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - DAY)
            .not_valid_after(self.now + ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_of(machine: Machine) -> Key:
    """The private key it has on its disk."""
    return serialization.load_pem_private_key(machine.key.read_bytes(), None)


def shown(machine: Machine) -> list[str]:
    """A chain as it is sent."""
    chain = x509.load_pem_x509_certificates(machine.chain.read_bytes())
    return [base64.b64encode(one.public_bytes(serialization.Encoding.DER)).decode() for one in chain]
