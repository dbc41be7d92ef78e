"""A root whose key is kept elsewhere: it signs the certificates of our issuing authorities, and nothing else of ours.

Nothing of it is held here: the certificate, the anchors and the key are read again at each use, so whoever keeps them
replaces them in their place. The bundle shows every anchor of the file, which may be more than the one that signs.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ca.authority.purposes import PURPOSES
from ca.errors import Unavailable
from ca.keys.memory import InMemoryKey
from ca.keys.pkcs11 import foreign_key
from ca.keys.protocol import KeyUnusable, SigningKey
from ca.keys.token import open_token
from ca.profiles.prepared import Kind
from ca.runtime.secret import Reference

_LONGEST = 256 * 1024
_MOST_ANCHORS = 32
_NAME = "upstream"


class RootKey(Protocol):
    """Where the root's key is."""

    async def signer(self, public_key: ec.EllipticCurvePublicKey) -> SigningKey:
        """The key of that public half. Raises KeyUnusable, Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKey:
    """In a PEM file only this user may read, under a passphrase or not."""

    path: Path
    passphrase: Reference | None = None

    async def signer(self, public_key: ec.EllipticCurvePublicKey) -> SigningKey:
        """Read it. Raises KeyUnusable."""
        return await asyncio.to_thread(self._read, public_key)

    def _read(self, public_key: ec.EllipticCurvePublicKey) -> SigningKey:
        content = _private_file(self.path)
        secret = None if self.passphrase is None else self.passphrase.read().reveal().encode()
        try:
            key = load_pem_private_key(content, secret)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # no cause: it might repeat what it read
            raise KeyUnusable(f"the root's key in `{self.path}` can't be read, or not with its passphrase") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != public_key:
            raise KeyUnusable(f"the key in `{self.path}` is not that of the root's certificate")
        return InMemoryKey(_NAME, PURPOSES[Kind.ROOT], key)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRootKey:
    """On a PKCS#11 token, under the label whoever made it gave it."""

    module: Path
    token: str
    pin: Reference
    label: str

    async def signer(self, public_key: ec.EllipticCurvePublicKey) -> SigningKey:
        """Find it, and see that it is this one. Raises KeyUnusable, Unavailable."""
        token = open_token(self.module, self.token, self.pin)
        return await foreign_key(token, self.label, PURPOSES[Kind.ROOT], public_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The root, and what else the bundle shows: `bundle` holds anchors, the root among them; without it, that alone."""

    certificate: Path
    key: RootKey
    bundle: Path | None = None

    async def anchors(self) -> Sequence[x509.Certificate]:
        """Every root of the file. Raises KeyUnusable."""
        found = await asyncio.to_thread(_certificates, self.bundle or self.certificate)
        root = (await asyncio.to_thread(_certificates, self.certificate))[0]
        if root not in found:
            raise KeyUnusable(f"the root `{self.certificate}` is not among the anchors of `{self.bundle}`")
        for each in found:
            _check_anchor(each, self.bundle or self.certificate)
        return found

    async def root(self, now: datetime) -> tuple[x509.Certificate, SigningKey]:
        """The root that signs at `now`, and its key. Raises KeyUnusable, Unavailable."""
        found = await asyncio.to_thread(_certificates, self.certificate)
        if len(found) != 1:
            raise KeyUnusable(f"`{self.certificate}` holds {len(found)} certificates: expected the root's alone")
        root = found[0]
        _check_anchor(root, self.certificate)
        public_key = root.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
            raise KeyUnusable(f"the root in `{self.certificate}` has a key that is not on P-256: expected one that is")
        if not root.not_valid_before_utc <= now < root.not_valid_after_utc:
            raise Unavailable(f"the root in `{self.certificate}` is not valid now: replace it")
        return root, await self.key.signer(public_key)


def _check_anchor(certificate: x509.Certificate, path: Path) -> None:
    """A root that may sign authorities which sign leaves. Raises KeyUnusable."""
    trouble = None
    try:
        extensions = certificate.extensions
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        named = any(isinstance(each.value, x509.NameConstraints) for each in extensions)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise KeyUnusable(f"a certificate in `{path}` is not that of a CA") from error
    if certificate.subject != certificate.issuer or not certificate.subject.rdns:
        trouble = "is no root: its subject is not its issuer"
    elif not basic.ca or not usage.key_cert_sign:
        trouble = "may not sign certificates"
    elif basic.path_length == 0:
        trouble = "allows no authority below it: expected a path length of 1 or more, or none"
    elif named:
        trouble = "has name constraints, with which several TLS libraries refuse every SVID"
    if trouble is not None:
        raise KeyUnusable(f"a certificate in `{path}` {trouble}")


def _certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, each once. Raises KeyUnusable."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise KeyUnusable(f"can't read `{path}`: {(error.strerror or 'unknown reason').lower()}") from error
    try:
        found = list(dict.fromkeys(x509.load_pem_x509_certificates(content)))
    except ValueError as error:
        raise KeyUnusable(f"`{path}` does not hold certificates in PEM") from error
    if len(content) > _LONGEST or len(found) > _MOST_ANCHORS:
        raise KeyUnusable(f"`{path}` holds more than {_MOST_ANCHORS} certificates or {_LONGEST} bytes")
    return found


def _private_file(path: Path) -> bytes:
    """A regular file of this user's that nobody else may touch. Raises KeyUnusable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyUnusable(
            f"can't open the root's key `{path}`: {(error.strerror or 'unknown reason').lower()}"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077:
            raise KeyUnusable(f"the root's key `{path}` may be touched by others: expected a file of mode `0600`")
        return file.read(_LONGEST)
