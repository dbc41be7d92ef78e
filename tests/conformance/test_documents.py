"""What holds for every kind of SVID (SPIFFE-ID.md 3): who signs it, what is signed, and that there is no other kind."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from ca.errors import Malformed
from ca.spiffe import jose, jwk, jwtsvid, proof, witsvid, x509svid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.replay import ReplayCache
from fakes.pki import NOON, TestAuthority, base64url, der_chain, make_key
from fakes.wits import HERE, WitIssuer, make_proof

ISSUER = WitIssuer(TestAuthority("example.org", seed="documents"), "documents")
AUTHORITY = ISSUER.authority
BUNDLES = BundleSet.of(ISSUER.bundle())


def by_certificate(chain: list[bytes]) -> str:
    """Who shows this chain."""
    return str(x509svid.verify(chain, BUNDLES, NOON).id)


def by_token(token: str) -> str:
    """Who bears this token."""
    return str(jwtsvid.verify(token, "server", BUNDLES, NOON).id)


def by_wit(wit: str, token: str) -> str:
    """Who proves this WIT."""
    return str(proof.verify(wit, token, audiences=[HERE], bundles=BUNDLES, now=NOON, seen=ReplayCache()).id)


def test_id_11_the_authority_of_a_trust_domain_names_it() -> None:
    """Its own certificate carries the domain's SPIFFE ID, without a path."""
    names = AUTHORITY.root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(AUTHORITY.trust_domain.id)]
    assert jwk.is_authority(AUTHORITY.root)


def test_id_12_the_name_in_a_certificate_is_signed() -> None:
    """Another name of the same length, in the place of the signed one."""
    chain = der_chain(AUTHORITY.leaf("/agent").chain)
    assert by_certificate(chain) == "spiffe://example.org/agent"
    assert chain[0].count(b"example.org/agent") == 1
    with pytest.raises(Untrusted, match="leads to no authority"):
        by_certificate([chain[0].replace(b"example.org/agent", b"example.org/admin"), *chain[1:]])


def test_id_12_the_key_in_a_certificate_is_signed() -> None:
    """Another key in the place of the signed one."""
    svid = AUTHORITY.leaf("/agent")
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    own, other = (key.public_key().public_bytes(*form) for key in (svid.private_key, make_key("thief")))
    chain = der_chain(svid.chain)
    assert own in chain[0]
    with pytest.raises(Untrusted, match="leads to no authority"):
        by_certificate([chain[0].replace(own, other), *chain[1:]])


def _with_claims(token: str, change: Callable[[dict[str, object]], object]) -> str:
    head, _, mark = token.split(".")
    claims = jose.take_apart(token, "a token")[1]
    change(claims)
    return f"{head}.{base64url(json.dumps(claims).encode())}.{mark}"


def test_id_12_the_name_in_a_token_is_signed() -> None:
    """In a bearer's and in a WIT."""

    def rename(claims: dict[str, object]) -> None:
        claims["sub"] = "spiffe://example.org/admin"

    with pytest.raises(Untrusted, match="signed by no key"):
        by_token(_with_claims(AUTHORITY.token(), rename))
    with pytest.raises(Untrusted, match="is not signed by"):
        witsvid.check(_with_claims(ISSUER.token(), rename), BUNDLES, NOON)


def test_id_12_the_key_in_a_wit_is_signed() -> None:
    """A thief's own key in the place of the holder's."""

    def rekey(claims: dict[str, object]) -> None:
        claims["cnf"] = {"jwk": jwk.of_confirmation(make_key("thief").public_key())}

    stolen = _with_claims(ISSUER.token(), rekey)
    with pytest.raises(Untrusted, match="is not signed by"):
        by_wit(stolen, make_proof(ISSUER.svid(), key=make_key("thief")))


SVID = AUTHORITY.leaf("/agent")
PAYLOAD = base64url(json.dumps({"sub": "spiffe://example.org/agent", "aud": "server", "exp": 9_999_999_999}).encode())
REQUEST = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
OTHERS = {
    "PEM": SVID.chain_pem(),
    "PKCS#7": pkcs7.serialize_certificates(list(SVID.chain), serialization.Encoding.DER),
    "certificate request": REQUEST.sign(make_key("csr"), hashes.SHA256()).public_bytes(serialization.Encoding.DER),
    "SSH certificate": b"ecdsa-sha2-nistp256-cert-v01@openssh.com " + base64.b64encode(b"\0" * 40),
    "PASETO": b"v4.public." + PAYLOAD.encode(),
    "JWE": b".".join([base64.urlsafe_b64encode(b'{"alg":"dir"}').rstrip(b"=")] * 5),
    "unsigned JWT": f"{base64url(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())}.{PAYLOAD}.".encode(),
    "SPIFFE ID": b"spiffe://example.org/agent",
    "JSON": b'{"sub":"spiffe://example.org/agent"}',
    "nothing": b"",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_id_13_what_is_no_document_of_the_standard_proves_nothing(data: bytes) -> None:
    """Whatever it is, and wherever it is shown."""
    with pytest.raises(Untrusted):
        by_certificate([data])
    text = data.decode("latin-1")
    with pytest.raises((Malformed, Untrusted)):
        by_token(text)
    with pytest.raises((Malformed, Untrusted)):
        by_wit(text, text)


def test_id_13_each_document_is_good_in_its_own_place_only() -> None:
    """A bearer token proves no WIT, a WIT without its proof is nobody, a proof is no identity."""
    assert by_certificate(der_chain(SVID.chain)) == by_token(AUTHORITY.token())
    wit = ISSUER.svid()
    made = make_proof(wit)
    assert by_wit(wit.token, made) == by_token(AUTHORITY.token())
    for token in (wit.token, made):
        with pytest.raises(Untrusted):
            by_token(token)
    for pair in ((AUTHORITY.token(), made), (made, made), (wit.token, wit.token), (wit.token, AUTHORITY.token())):
        with pytest.raises(Untrusted):
            by_wit(*pair)
