"""Vectors in DER: chains and anchors as the Workload API carries them, with what does not belong there, and lists."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator, Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fakes.pki import NOON, make_key
from fakes.revocations import make_list
from vectors.authorities import FOREIGN, OWN


def der(certificate: x509.Certificate) -> bytes:
    """One certificate."""
    return certificate.public_bytes(serialization.Encoding.DER)


def grown(data: bytes, more: bytes) -> bytes:
    """The same DER sequence with `more` inside of it, behind all it should hold."""
    assert data[:2] == b"\x30\x82"
    return b"\x30\x82" + (len(data) - 4 + len(more)).to_bytes(2, "big") + data[4:] + more


def with_other_length(data: bytes) -> bytes:
    """The same with its length in one byte more than it needs, which is BER and no DER."""
    assert data[:2] == b"\x30\x82"
    return b"\x30\x83\x00" + data[2:]


def _pem(*ders: bytes) -> bytes:
    lines: list[str] = []
    for each in ders:
        encoded = textwrap.wrap(base64.b64encode(each).decode(), 64)
        lines += ["-----BEGIN CERTIFICATE-----", *encoded, "-----END CERTIFICATE-----"]
    return "\n".join([*lines, ""]).encode()


def swollen(plain: x509.Certificate) -> Iterator[tuple[str, bytes]]:
    """Certificates with bytes behind or inside them."""
    leaf, issuer = der(plain), der(OWN.issuer)
    yield "refused_bytes_behind_the_leaf", _pem(leaf + b"\0", issuer)
    yield "refused_bytes_behind_the_issuer", _pem(leaf, issuer + b"\0\0")
    yield "refused_a_second_certificate_behind_the_leaf", _pem(leaf + issuer)
    yield "refused_bytes_inside_the_leaf", _pem(grown(leaf, b"\x05\0"), issuer)
    yield "refused_length_that_is_not_der", _pem(with_other_length(leaf), issuer)
    yield "refused_cut_off", _pem(leaf[:-1], issuer)


def chains(plain: x509.Certificate) -> Iterator[tuple[str, bytes]]:
    """Chains of one's own."""
    leaf, issuer = der(plain), der(OWN.issuer)
    yield "accepted_plain", leaf + issuer
    yield "accepted_root_behind", leaf + issuer + der(OWN.root)
    yield from _crooked(leaf + issuer)
    yield "refused_issuer_first", issuer + leaf
    yield "refused_more_than_eight", leaf + issuer * 8


def anchors() -> Iterator[tuple[str, bytes]]:
    """Authorities of one trust domain."""
    root, other = der(OWN.root), der(FOREIGN.root)
    yield "accepted_plain", root
    yield "accepted_two", root + other
    yield "accepted_none", b""
    yield from ((name, data) for name, data in _crooked(root + other) if name != "refused_nothing")
    yield "refused_a_leaf", root + der(OWN.certificate("/other"))


def _crooked(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "refused_nothing", b""
    yield "refused_a_zero_behind", data + b"\0"
    yield "refused_an_empty_sequence_behind", data + b"\x30\0"
    yield "refused_cut_off", data[:-1]
    yield "refused_length_that_is_not_der", with_other_length(data)
    yield "refused_indefinite_length", b"\x30\x80" + data[4:] + b"\0\0"
    yield "refused_length_of_four_bytes", b"\x30\x84\xff\xff\xff\xff" + data[4:]
    yield "refused_another_tag", b"\x31" + data[1:]
    yield "refused_pem", _pem(data)


def lists(plain: x509.Certificate) -> Iterator[tuple[str, bytes]]:
    """Revocation lists, told by what they do to `plain`."""
    mine = [plain.serial_number]
    honest = make_list(OWN, mine)
    yield "revokes_plain", honest
    yield "revokes_among_others", make_list(OWN, [1, *mine, 2**158], number=2**64)
    yield "revokes_overdue", make_list(OWN, mine, now=NOON - timedelta(days=30))
    yield "revokes_from_ahead", make_list(OWN, mine, now=NOON + timedelta(minutes=1))
    yield "revokes_with_a_reason", make_list(OWN, mine, entry=[(x509.CRLReason(x509.ReasonFlags.superseded), False)])
    by_root = (OWN.root, OWN.root_key)
    yield "revokes_the_issuer", make_list(OWN, [OWN.issuer.serial_number], signer=by_root)
    yield "spares_empty", make_list(OWN)
    yield "spares_by_another_trust_domain", make_list(FOREIGN, mine)
    yield "spares_by_the_root_for_the_issuer", make_list(OWN, mine, signer=by_root)
    yield "spares_signed_by_a_stranger", make_list(OWN, mine, key=make_key("a stranger"))
    forged = x509.AuthorityKeyIdentifier.from_issuer_public_key(OWN.issuer_key.public_key())
    yield "spares_our_key_id_by_another", make_list(FOREIGN, mine, key_id=forged)
    yield "refused_bytes_behind", honest + b"\0"
    yield "refused_two_lists", honest + make_list(OWN, number=2)
    yield "refused_cut_off", honest[:-1]
    yield "refused_a_certificate", der(OWN.root)
    for name, extra in _extensions().items():
        yield f"refused_{name}", make_list(OWN, mine, extra=extra)
    yield "refused_no_key_id", make_list(OWN, mine, no_key_id=True)
    yield "refused_no_number", make_list(OWN, mine, number=None)
    indirect = x509.CertificateIssuer([x509.UniformResourceIdentifier("spiffe://foreign.org")])
    yield "refused_entry_of_another_issuer", make_list(OWN, mine, entry=[(indirect, True)])


def _extensions() -> dict[str, Sequence[tuple[x509.ExtensionType, bool]]]:
    partial = x509.IssuingDistributionPoint(None, None, only_contains_user_certs=True, only_contains_ca_certs=False,
        only_some_reasons=None, indirect_crl=False, only_contains_attribute_certs=False)  # fmt: skip
    indirect = x509.IssuingDistributionPoint(None, None, only_contains_user_certs=False, only_contains_ca_certs=False,
        only_some_reasons=None, indirect_crl=True, only_contains_attribute_certs=False)  # fmt: skip
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.65980.99"), b"\x05\x00")
    return {
        "only_users": [(partial, True)],
        "indirect": [(indirect, True)],
        "changes_only": [(x509.DeltaCRLIndicator(1), True)],
        "unknown_critical_extension": [(unknown, True)],
    }
