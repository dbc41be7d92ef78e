"""What a certificate must be before it may stand for a workload (X509-SVID.md sections 2 to 5.2).

Only the certificate itself is judged here; whether somebody trusted signed it is `x509svid.verify`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ca.errors import Malformed
from ca.spiffe.der import UNREADABLE
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId

_INSTANCE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a leaf says."""

    id: SpiffeId
    instance: str | None
    authority_key_id: bytes | None


def read(certificate: x509.Certificate) -> Leaf:
    """Judge `certificate` as the leaf of an X.509-SVID.

    Raises:
        Untrusted: it breaks a rule for leaves; the sentence names the rule.
    """
    try:
        extensions, subject = certificate.extensions, certificate.subject
    except UNREADABLE as error:
        raise Untrusted("the certificate's names or extensions can't be read") from error
    spiffe_id = _only_id(extensions, empty_subject=not subject.rdns)
    _no_authority(extensions)
    _for_signatures(extensions)
    _both_ends(extensions)
    return Leaf(spiffe_id, _instance(subject), _authority_key_id(extensions))


def claimed_id(certificate: x509.Certificate) -> str:
    """The URI names a certificate claims, proven or not: for a log, never for a decision."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return "no readable URI name"
    return " ".join(uris)[:200].encode("unicode_escape").decode("ascii") or "no URI name"


def _only_id(extensions: x509.Extensions, *, empty_subject: bool) -> SpiffeId:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound as error:
        raise Untrusted("the certificate has no subject alternative name, so it holds no SPIFFE ID") from error
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise Untrusted(f"the certificate has {len(uris)} URI names where an X.509-SVID has exactly one")
    if empty_subject and not names.critical:
        raise Untrusted("the certificate has no subject, and its subject alternative name is not critical")
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except Malformed as error:
        raise Untrusted(f"the certificate's URI name is not a SPIFFE ID: {error}") from error
    if not spiffe_id.path:
        raise Untrusted(f"`{spiffe_id}` has no path, so it names a trust domain and not a workload")
    return spiffe_id


def _no_authority(extensions: x509.Extensions) -> None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return  # absent means the default, cA=FALSE (RFC 5280, 4.2.1.9)
    if constraints.ca:
        raise Untrusted("the certificate is a certificate authority's and must not stand for a workload")


def _for_signatures(extensions: x509.Extensions) -> None:
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound as error:
        raise Untrusted("the certificate has no key usage") from error
    if not usage.critical:
        raise Untrusted("the certificate's key usage is not critical")
    if not usage.value.digital_signature:
        raise Untrusted("the certificate's key usage lacks digitalSignature")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise Untrusted("the certificate's key usage holds keyCertSign or cRLSign, which no leaf may have")


def _both_ends(extensions: x509.Extensions) -> None:
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(usages):
        raise Untrusted("the certificate's extended key usage must hold both serverAuth and clientAuth")


def _instance(subject: x509.Name) -> str | None:
    values = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    if len(values) == 1 and isinstance(values[0], str) and _INSTANCE.fullmatch(values[0]):
        return values[0]
    return None


def _authority_key_id(extensions: x509.Extensions) -> bytes | None:
    try:
        return extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None
