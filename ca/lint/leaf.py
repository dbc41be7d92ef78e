"""The rules for a leaf (X509-SVID.md 3.1 and 4; RFC 5280, 4.2.1.6)."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from ca.lint.case import LONGEST_LIST, X509Case, instance_form, usages
from ca.lint.certificate import Rule

_SUBJECT = frozenset({NameOID.COUNTRY_NAME, NameOID.ORGANIZATION_NAME, NameOID.SERIAL_NUMBER})
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ADDRESS = re.compile(r"(?:.*\.)?[0-9]+")
"""What ends in a number is read as an IP address by somebody."""


def has_a_path(case: X509Case) -> str | None:
    """A leaf is a member of the trust domain, not the trust domain."""
    return None if case.prepared.subject.path else "is a leaf whose SPIFFE ID has no path"


def is_no_ca(case: X509Case) -> str | None:
    """CA:FALSE, said and critical: some readers refuse a leaf that says nothing."""
    extension = case.extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    expected = x509.BasicConstraints(ca=False, path_length=None)
    if extension is None or not extension.critical or extension.value != expected:
        return "does not say that it is no authority"
    return None


def only_signs(case: X509Case) -> str | None:
    """Key usage is critical and digitalSignature alone; so neither keyCertSign nor cRLSign."""
    return None if usages(case) == {"digital_signature"} else "has another key usage than digitalSignature, critical"


def is_for_both_ends(case: X509Case) -> str | None:
    """The purposes serverAuth and clientAuth, nothing else."""
    extension = case.extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    expected = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    if extension is None or set(extension.value) != expected:
        return "is not for serverAuth and clientAuth"
    return None


def has_an_acceptable_key(case: X509Case) -> str | None:
    """P-256, P-384, RSA of 2048 to 4096 bits with a sound exponent, or Ed25519."""
    match case.certificate.public_key():
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()) | ed25519.Ed25519PublicKey():
            return None
        case rsa.RSAPublicKey() as key if 2048 <= key.key_size <= 4096 and key.public_numbers().e >= 65537:
            return None
        case _:
            return "has a public key that is not P-256, P-384, RSA of 2048 to 4096 bits, or Ed25519"


def subject_is_ours(case: X509Case) -> str | None:
    """Country, organisation and instance; a common name would be read as a user by some servers (traps 24)."""
    subject = case.certificate.subject
    if any(attribute.oid not in _SUBJECT for attribute in subject):
        return "has a subject with more than country, organisation and serial number"
    if not subject.rdns and not case.extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].critical:
        return "has an empty subject and a name that is not critical"
    return None


def names_its_instance(case: X509Case) -> str | None:
    """The subject's serialNumber is the instance that is recorded, and absent when there is none."""
    found = [attribute.value for attribute in case.certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    if found != ([] if case.prepared.instance is None else [case.prepared.instance]):
        return "does not name the instance that was to be recorded"
    return instance_form(case.prepared)


def has_its_dns_names(case: X509Case) -> str | None:
    """The DNS names that are recorded: lower case, no wildcard, no address, no duplicates."""
    names = case.extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value.get_values_for_type(x509.DNSName)
    if tuple(names) != case.prepared.dns_names:
        return "has other DNS names than were to be recorded"
    if len(names) > LONGEST_LIST or len(set(names)) != len(names):
        return f"has a DNS name twice, or more than {LONGEST_LIST} of them"
    for name in names:
        if len(name) > 253 or not _DNS_NAME.fullmatch(name) or _ADDRESS.fullmatch(name):
            return f"has `{ascii(name[:80])[1:-1]}` among its DNS names: expected a lower-case name without wildcard"
    return None


LEAF_RULES: tuple[tuple[str, Rule], ...] = (
    ("X509-SVID, 3.1", has_a_path),
    ("X509-SVID, 4.1", is_no_ca),
    ("X509-SVID, 4.3", only_signs),
    ("X509-SVID, 4.4", is_for_both_ends),
    ("RFC 5280, 4.1.2.7", has_an_acceptable_key),
    ("RFC 5280, 4.1.2.6", subject_is_ours),
    ("sojourn, instance", names_its_instance),
    ("RFC 5280, 4.2.1.6", has_its_dns_names),
)
"""For leaves, after the rules for every certificate."""
