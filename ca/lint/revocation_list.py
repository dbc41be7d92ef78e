"""The rules for a revocation list (RFC 5280, 5)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from ca.lint.case import ListCase
from ca.profiles.crl import MOST_ENTRIES
from ca.profiles.template import ALGORITHM, integer

ListRule = Callable[[ListCase], str | None]
_HIGHEST_NUMBER = 2**63 - 1


def is_of_version_2(case: ListCase) -> str | None:
    """It has extensions, so it is of version 2; and it is signed as it says, which the parser does not compare."""
    tbs = case.prepared.tbs
    header = 2 if tbs[1] < 0x80 else 2 + (tbs[1] & 0x7F)
    return None if tbs[header:].startswith(integer(1) + ALGORITHM) else "is not of version 2 with ECDSA-SHA256"


def names_its_issuer(case: ListCase) -> str | None:
    """The issuer's name and key are those of the authority that signs; it has a name, so it is no token's key."""
    if case.prepared.issuer_key_id != case.issuer.key_id:
        return "was prepared for another issuer"
    if case.prepared.subject != case.issuer.trust_domain.id:
        return "is of another trust domain"
    key = case.extensions.get(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    if key is None or key.critical or key.value != x509.AuthorityKeyIdentifier(case.issuer.key_id, None, None):
        return "does not name its issuer's key"
    if not case.issuer.subject or case.parsed.issuer.public_bytes() != case.issuer.subject:
        return "does not name its issuer"
    return None


def has_its_times(case: ListCase) -> str | None:
    """Both times are what was asked for, in this order, and within the issuer's life."""
    begin, end = case.parsed.last_update_utc, case.parsed.next_update_utc
    if (begin, end) != (case.prepared.not_before, case.prepared.not_after):
        return "has other times than were asked for"
    if begin >= case.prepared.not_after:
        return "ends before it begins"
    return "would outlive its issuer" if case.prepared.not_after > case.issuer.not_after else None


def has_its_number(case: ListCase) -> str | None:
    """Its own number is what was asked for, and one that is above an empty beginning."""
    extension = case.extensions.get(ExtensionOID.CRL_NUMBER)
    if extension is None or extension.critical or extension.value.crl_number != case.prepared.serial:
        return "has another number than was asked for"
    return None if 0 < case.prepared.serial <= _HIGHEST_NUMBER else "has a number that is out of range"


def has_no_other_extension(case: ListCase) -> str | None:
    """Neither a list of changes only, nor one for several issuers."""
    other = set(case.extensions) - {ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER}
    return (
        f"has the extension `{min(oid.dotted_string for oid in other)}`, which is not in its profile" if other else None
    )


def names_what_was_revoked(case: ListCase) -> str | None:
    """Exactly the serials that were told, in order and none twice, with nothing said about any of them."""
    found = []
    for entry in case.parsed:
        if len(entry.extensions):
            return "says why something was taken back, which is nobody else's business"
        found.append(entry.serial_number)
    if tuple(found) != case.prepared.revoked:
        return "names other certificates than were told to be revoked"
    if len(found) > MOST_ENTRIES:
        return f"names more than {MOST_ENTRIES} certificates"
    if any(one >= other for one, other in pairwise(found)) or min(found, default=1) < 1:
        return "names its certificates in no order, or one of them twice"
    return None


LIST_RULES: tuple[tuple[str, ListRule], ...] = (
    ("RFC 5280, 5.1.2.1", is_of_version_2),
    ("RFC 5280, 5.2.1", names_its_issuer),
    ("RFC 5280, 5.1.2.4", has_its_times),
    ("RFC 5280, 5.2.3", has_its_number),
    ("RFC 5280, 5.2", has_no_other_extension),
    ("RFC 5280, 5.3", names_what_was_revoked),
)
"""For revocation lists, in this order."""
