"""A foreign bundle must not hold what is ours.

A foreign authority is judged by its own trust domain alone, so one with our key or our name gives nobody an identity
of ours. But TLS stacks admit chains by pools of certificates, and a foreign one with the name and key id of one of ours
may be the one that is picked: it could keep our own peers apart. And a bundle with a key of ours is a lie or a mistake.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.authority import Authority
from ca.errors import Malformed
from ca.spiffe import der
from ca.spiffe.bundle import Bundle, PublicKey
from ca.spiffe.der import UNREADABLE


def clash(ours: Authority, foreign: Bundle) -> str | None:
    """What `foreign` holds of ours; None when it may be given on. Raises Malformed."""
    what = f"the bundle of `{foreign.trust_domain}`"
    certificates = _certificates(ours)
    keys = {one.public_key for one in ours.believed} | {_spki(one.public_key()) for one in certificates}
    theirs = [one.public_key() for one in foreign.x509_authorities]
    theirs += [*foreign.jwt_authorities.values(), *foreign.wit_authorities.values()]
    if any(_spki(key) in keys for key in theirs):
        return f"{what} holds a key of our own trust domain"
    try:
        names = {(one.subject.public_bytes(), der.key_id_of(one)) for one in certificates}
        if any((one.subject.public_bytes(), der.key_id_of(one)) in names for one in foreign.x509_authorities):
            return f"{what} holds an authority under the name and key id of one of ours"
    except UNREADABLE as error:
        raise Malformed(f"{what} holds an authority whose name can't be read") from error
    return None


def _certificates(ours: Authority) -> list[x509.Certificate]:
    """Of every authority of ours that signs certificates, the roots kept elsewhere too."""
    own = [one.certificate for one in ours.believed if one.certificate is not None]
    return [x509.load_der_x509_certificate(one) for one in (*own, *(anchor.certificate for anchor in ours.anchors))]


def _spki(key: object) -> bytes:
    assert isinstance(key, PublicKey), "a bundle holds no others"
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
