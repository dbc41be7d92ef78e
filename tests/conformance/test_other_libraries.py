"""Second judges: what we write is read by libraries that know nothing of ours, and what they write by us.

They ask the machine's own clock, and so these tests do.
"""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from spiffe import JwtBundle, X509Bundle
from spiffe import TrustDomain as TheirDomain

from ca.keys.memory import MemoryKeyStore
from ca.profiles import wit
from ca.runtime.clock import SystemClock
from ca.spiffe import jose, jwk, jwtsvid, proof
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.id import TrustDomain
from ca.spiffe.replay import ReplayCache
from ca.spiffe.witsvid import WitSvid
from fakes.authority import DOMAIN, leaf, opened, token
from fakes.clock import ManualClock
from fakes.pki import TestAuthority, make_key
from fakes.revocations import make_list
from fakes.wits import HERE, WitIssuer

HOLDER = make_key()
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA),
}


async def test_pyjwt_reads_what_our_authority_signs(tmp_path: Path) -> None:
    """JWT-SVID and WIT-SVID, with the keys of the bundle as it is published."""
    now = SystemClock().now()
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(now)) as authority:
        published = jwt.PyJWKSet.from_json(authority.bundle(now).to_jwks().decode())
        keys = {key.key_id: key for key in published.keys if key.key_id}
        signed = await authority.sign_jwt(token(authority, now))
        said = jwt.decode(
            signed, keys[jwt.get_unverified_header(signed)["kid"]], algorithms=["ES256"], audience="server"
        )
        assert said["sub"] == "spiffe://example.org/agent"
        spki = HOLDER.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        wish = wit.WitRequest(id=DOMAIN.member("/agent"), public_key=spki, instance=None, ttl=timedelta(minutes=5))
        text = await authority.sign_wit(wit.prepare(wish, authority.wit_issuer(now), now))
        named = jwt.decode(text, keys[jwt.get_unverified_header(text)["kid"]], algorithms=["ES256"])
        assert jwt.PyJWK(named["cnf"]["jwk"]).key == HOLDER.public_key()


def test_pyjwt_reads_our_proofs() -> None:
    """With the key that the WIT names."""
    now = SystemClock().now()
    issuer = WitIssuer(TestAuthority(now=now))
    svid = issuer.svid(now=now)
    element = jose.take_apart(svid.token, "a WIT")[1]["cnf"]["jwk"]
    said = jwt.decode(proof.mint(svid, HERE, now), jwt.PyJWK(element), algorithms=[element["alg"]], audience=HERE)
    assert set(said) == {"aud", "exp", "jti", "wth"}


@pytest.mark.clause("JWT-2", "WIT-3")
@pytest.mark.parametrize("algorithm", jose.ALGORITHMS)
def test_we_read_what_pyjwt_signs(algorithm: str) -> None:
    """Each of the nine, as bearer token, WIT and proof."""
    now = SystemClock().now()
    key = KEYS[algorithm]
    public = key.public_key()
    bundles = BundleSet.of(Bundle(trust_domain=DOMAIN, jwt_authorities={"j": public}, wit_authorities={"w": public}))
    claims = {"sub": "spiffe://example.org/agent", "exp": now + timedelta(minutes=5)}
    bearer = jwt.encode(claims | {"aud": "server"}, key, algorithm, {"kid": "j"})
    assert str(jwtsvid.verify(bearer, "server", bundles, now).id) == claims["sub"]
    element = jwk.of_confirmation(public) | {"alg": algorithm}
    named = jwt.encode(claims | {"cnf": {"jwk": element}}, key, algorithm, {"kid": "w", "typ": "wit+jwt"})
    svid = WitSvid.of(named, key)
    _, about = jose.take_apart(proof.mint(svid, HERE, now), "a proof")
    shown = jwt.encode(about, key, algorithm, {"typ": "wpt+jwt"})
    peer = proof.verify(named, shown, audiences=[HERE], bundles=bundles, now=now, seen=ReplayCache())
    assert str(peer.id) == claims["sub"]


def test_the_pypi_client_reads_our_bundles() -> None:
    """Both forms the Workload API has."""
    now = SystemClock().now()
    bundle = WitIssuer(TestAuthority(now=now)).bundle()
    theirs = TheirDomain("example.org")
    assert set(JwtBundle.parse(theirs, bundle.jwt_jwks()).jwt_authorities) == set(bundle.jwt_authorities)
    assert X509Bundle.parse_raw(theirs, bundle.x509_der()).x509_authorities == set(bundle.x509_authorities)
    empty = Bundle(trust_domain=TrustDomain.parse("example.org"))
    assert not JwtBundle.parse(theirs, empty.jwt_jwks()).jwt_authorities


def openssl(folder: Path, *arguments: str, **files: bytes) -> str:
    """What the command answers about these files."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("listed", [True, False])
async def test_openssl_holds_our_leaves_against_lists_as_we_do(tmp_path: Path, listed: bool) -> None:  # noqa: FBT001
    """A leaf of our authority, its chain, and a list of the issuer for which OpenSSL wants one of the root too."""
    now = SystemClock().now()
    ours = TestAuthority(now=now)
    one = ours.leaf("/agent")
    serials = [one.chain[0].serial_number] if listed else []
    lists = [make_list(ours, serials, now=now), make_list(ours, now=now, signer=(ours.root, ours.root_key))]
    pem = [_pem(each) for each in lists]
    said = openssl(
        tmp_path,
        *("verify", "-crl_check_all", "-CAfile", "root", "-untrusted", "issuer", "-CRLfile", "lists", "leaf"),
        root=ours.root.public_bytes(serialization.Encoding.PEM),
        issuer=ours.issuer.public_bytes(serialization.Encoding.PEM),
        lists=b"".join(pem),
        leaf=one.chain[0].public_bytes(serialization.Encoding.PEM),
    )
    assert ("certificate revoked" in said) is listed
    assert ("leaf: OK" in said) is not listed


async def test_openssl_accepts_what_our_authority_signs(tmp_path: Path) -> None:
    """With X.509's strict checks on."""
    now = SystemClock().now()
    async with opened(tmp_path, MemoryKeyStore(), ManualClock(now)) as authority:
        chain = await authority.sign_x509(leaf(authority, now))
        root = authority.bundle(now).x509_authorities[0]
    said = openssl(
        tmp_path,
        *("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "root", "-untrusted", "issuer", "leaf"),
        root=root.public_bytes(serialization.Encoding.PEM),
        issuer=_certificate(chain[1]),
        leaf=_certificate(chain[0]),
    )
    assert "leaf: OK" in said


def _certificate(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
