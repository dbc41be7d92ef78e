"""The rules for every certificate, and those for an authority's own (RFC 5280; X509-SVID.md 2 to 4)."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from ca.lint.case import X509Case, own_member, usages
from ca.profiles.prepared import Kind
from ca.profiles.template import begins_with

Rule = Callable[[X509Case], str | None]

_CA_EXTENSIONS = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_LEAF_EXTENSIONS = _CA_EXTENSIONS | {ExtensionOID.EXTENDED_KEY_USAGE}


def is_version_3(case: X509Case) -> str | None:
    """It has extensions, so it is of version 3."""
    return None if case.certificate.version is x509.Version.v3 else "is not of version 3"


def has_its_serial(case: X509Case) -> str | None:
    """The serial is the one that is recorded, positive, of 64 to 159 bits."""
    serial = case.certificate.serial_number
    if serial != case.prepared.serial:
        return "has another serial number than was to be recorded"
    return None if 64 <= serial.bit_length() <= 159 else "has a serial number that can be guessed or is too long"


def is_signed_with_ecdsa(case: X509Case) -> str | None:
    """The algorithm inside is the one our keys sign with, as it will be outside; the parser does not compare them."""
    return None if begins_with(case.prepared.tbs, case.prepared.serial) else "is not to be signed with ECDSA-SHA256"


def has_its_validity(case: X509Case) -> str | None:
    """It begins before it ends, and both are what is recorded."""
    begin, end = case.certificate.not_valid_before_utc, case.certificate.not_valid_after_utc
    if (begin, end) != (case.prepared.not_before, case.prepared.not_after):
        return "has another validity than was to be recorded"
    return None if begin < end else "ends before it begins"


def lives_within_its_issuer(case: X509Case) -> str | None:
    """It is valid only while its issuer is."""
    begin, end = case.certificate.not_valid_before_utc, case.certificate.not_valid_after_utc
    if end > case.issuer.not_after:
        return f"would outlive its issuer, which ends at {case.issuer.not_after.isoformat()}"
    return "would begin before its issuer" if begin < case.issuer.not_before else None


def names_its_issuer(case: X509Case) -> str | None:
    """The issuer's name and key identifier are those of the authority that signs."""
    extension = case.extensions.get(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    if extension is None or extension.critical or extension.value.key_identifier != case.issuer.key_id:
        return "does not name its issuer's key"
    if case.prepared.issuer_key_id != case.issuer.key_id:
        return "was prepared for another issuer"
    return None if case.certificate.issuer.public_bytes() == case.issuer.subject else "does not name its issuer"


def names_its_key(case: X509Case) -> str | None:
    """The subject key identifier is that of the public key."""
    extension = case.extensions.get(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    expected = x509.SubjectKeyIdentifier.from_public_key(case.certificate.public_key())
    if extension is None or extension.critical or extension.value != expected:
        return "does not name its own key"
    return None


def has_one_spiffe_id(case: X509Case) -> str | None:
    """Exactly one URI, the SPIFFE ID that is recorded, of the issuer's own trust domain; beside it only DNS names."""
    extension = case.extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if extension is None:
        return "has no subject alternative name"
    names = list(extension.value)
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if uris != [str(case.prepared.subject)]:
        return "does not have exactly the one SPIFFE ID that was to be recorded"
    if not all(isinstance(name, x509.UniformResourceIdentifier | x509.DNSName) for name in names):
        return "has a subject alternative name that is neither URI nor DNS name"
    return own_member(case.prepared, case.issuer)


def has_no_other_extension(case: X509Case) -> str | None:
    """Only what the profile is made of: above all no name constraints (traps 1)."""
    other = set(case.extensions) - (_LEAF_EXTENSIONS if case.prepared.kind is Kind.LEAF else _CA_EXTENSIONS)
    if not other:
        return None
    return f"has the extension `{min(oid.dotted_string for oid in other)}`, which is not in its profile"


def has_no_path(case: X509Case) -> str | None:
    """An authority carries the trust domain's own SPIFFE ID, and no other name."""
    names = case.extensions[ExtensionOID.SUBJECT_ALTERNATIVE_NAME].value
    return (
        "is an authority with more than the trust domain's name"
        if case.prepared.subject.path or len(names) > 1
        else None
    )


def is_a_ca(case: X509Case) -> str | None:
    """CA:TRUE and critical; an issuing authority signs leaves and nothing below."""
    extension = case.extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    expected = x509.BasicConstraints(ca=True, path_length=0 if case.prepared.kind is Kind.ISSUING else None)
    if extension is None or not extension.critical or extension.value != expected:
        return "does not say what authority it is"
    return None


def signs_certificates_and_lists(case: X509Case) -> str | None:
    """The usages keyCertSign and cRLSign, critical (traps 15); an authority never authenticates itself."""
    if usages(case) != {"key_cert_sign", "crl_sign"}:
        return "has another key usage than keyCertSign and cRLSign, critical"
    return None


def is_on_p256(case: X509Case) -> str | None:
    """The curve every SPIFFE reader knows, and ten times as fast as the next."""
    key = case.certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return None
    return "is an authority whose key is not on P-256"


def has_a_name(case: X509Case) -> str | None:
    """A CA's subject is not empty; a root's issuer is itself, another's is not."""
    subject, issuer = case.certificate.subject, case.certificate.issuer
    if not subject.rdns:
        return "is an authority without a name"
    if (case.prepared.kind is Kind.ROOT) != (subject == issuer):
        return "must be self-issued if it is a root, and only then"
    return None


X509_RULES: tuple[tuple[str, Rule], ...] = (
    ("RFC 5280, 4.1.2.1", is_version_3),
    ("RFC 5280, 4.1.2.2", has_its_serial),
    ("RFC 5758, 3.2", is_signed_with_ecdsa),
    ("RFC 5280, 4.1.2.5", has_its_validity),
    ("RFC 5280, 6.1.3", lives_within_its_issuer),
    ("RFC 5280, 4.2.1.1", names_its_issuer),
    ("RFC 5280, 4.2.1.2", names_its_key),
    ("X509-SVID, 2", has_one_spiffe_id),
    ("X509-SVID, 4.2", has_no_other_extension),
)
"""For every certificate. They run first: the others rely on what these have found to be there."""

CA_RULES: tuple[tuple[str, Rule], ...] = (
    ("X509-SVID, 3.2", has_no_path),
    ("X509-SVID, 4.1", is_a_ca),
    ("X509-SVID, 4.3", signs_certificates_and_lists),
    ("sojourn, curve", is_on_p256),
    ("RFC 5280, 4.1.2.6", has_a_name),
)
"""For roots and issuing authorities."""
