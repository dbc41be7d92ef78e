"""What the rules judge: the bytes read back, what the `Prepared` says of them, and the authority that will sign."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from ca.errors import Malformed
from ca.profiles.prepared import Issuer, Prepared
from ca.spiffe.id import SpiffeId

LONGEST_LIST = 64
"""The most DNS names of a leaf, and the most audiences of a token."""

_INSTANCE = re.compile(r"[0-9a-f]{32}")
_USAGE_BITS = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Case:
    """A certificate to be judged; `issuer` holds its own facts when it is a root."""

    prepared: Prepared
    certificate: x509.Certificate
    extensions: dict[x509.ObjectIdentifier, x509.Extension[Any]]
    issuer: Issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtCase:
    """A token to be judged."""

    prepared: Prepared
    header: dict[str, Any]
    claims: dict[str, Any]
    issuer: Issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCase:
    """A revocation list to be judged."""

    prepared: Prepared
    parsed: x509.CertificateRevocationList
    extensions: dict[x509.ObjectIdentifier, x509.Extension[Any]]
    issuer: Issuer


def own_member(prepared: Prepared, issuer: Issuer) -> str | None:
    """The SPIFFE ID is to the letter of the standard, and one the issuer may name."""
    try:
        subject = SpiffeId.parse(str(prepared.subject))
    except Malformed as error:
        return f"has no SPIFFE ID: {error}"
    if not subject.member_of(issuer.trust_domain) or subject != prepared.subject:
        return f"names `{subject}`, which is not in the trust domain `{issuer.trust_domain}`"
    return None


def usages(case: X509Case) -> set[str] | None:
    """The names of the key usage bits that are set, or None when the extension is absent or not critical."""
    extension = case.extensions.get(ExtensionOID.KEY_USAGE)
    if extension is None or not extension.critical:
        return None
    return {bit for bit in _USAGE_BITS if getattr(extension.value, bit)}


def instance_form(prepared: Prepared) -> str | None:
    """An instance is written as 32 hexadecimal digits."""
    if prepared.instance is None or _INSTANCE.fullmatch(prepared.instance):
        return None
    return "names an instance that is not 32 hexadecimal digits"
