"""T34: whoever chooses how a signature is checked chooses who signed: `alg` and `kid` games on all three tokens.

A bundle with keys of every kind, so that a verifier that let the header choose would find something to be fooled with.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ca.errors import Malformed
from ca.spiffe import jose, jwk, jwtsvid, proof, witsvid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import TrustDomain
from ca.spiffe.replay import ReplayCache
from ca.spiffe.witsvid import WitSvid
from fakes.pki import NOON, base64url
from fakes.wits import HERE

KEYS: dict[str, Any] = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}
FOREIGN_KEY = ec.generate_private_key(ec.SECP256R1())
OURS, THEIRS = TrustDomain.parse("example.org"), TrustDomain.parse("foreign.org")
JWT_KEYS = {f"jwt-{name}": key.public_key() for name, key in KEYS.items()}
WIT_KEYS = {f"wit-{name}": key.public_key() for name, key in KEYS.items()}
BUNDLES = BundleSet.of(
    Bundle(trust_domain=OURS, jwt_authorities=JWT_KEYS, wit_authorities=WIT_KEYS),
    Bundle(
        trust_domain=THEIRS,
        jwt_authorities={"theirs": FOREIGN_KEY.public_key()},
        wit_authorities={"their-wit": FOREIGN_KEY.public_key()},
    ),
)
GOOD = {
    "p256": ("ES256",),
    "p384": ("ES384",),
    "p521": ("ES512",),
    "rsa": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
}
HOLDER = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"sub": "spiffe://example.org/agent", "exp": jose.seconds(NOON + timedelta(minutes=5))}
JWT_CLAIMS = CLAIMS | {"aud": "server"}
WIT_CLAIMS = CLAIMS | {"cnf": {"jwk": jwk.of_confirmation(HOLDER.public_key())}}


def by_jwt(token: str) -> str:
    """Who bears it."""
    return str(jwtsvid.verify(token, "server", BUNDLES, NOON).id)


def by_wit(token: str) -> str:
    """Whom it names."""
    return witsvid.check(token, BUNDLES, NOON).subject


KINDS = {"jwt": (by_jwt, JWT_CLAIMS, {"typ": "JWT"}), "wit": (by_wit, WIT_CLAIMS, {"typ": "wit+jwt"})}


def under(token: str, **header: Any) -> str:
    """The same payload and signature under another header."""
    head = jose.take_apart(token, "a token")[0] | header
    return ".".join([base64url(json.dumps(head).encode()), *token.split(".")[1:]])


def signed(kind: str, name: str, algorithm: str, **header: Any) -> str:
    """An honest token by the key of this name, its header then changed before it is signed."""
    _, claims, typ = KINDS[kind]
    head = {"alg": algorithm, "kid": f"{kind}-{name}", **typ, **header}
    return jose.sign(head, claims, KEYS[name])


@pytest.mark.clause("JWT-2", "WIT-3")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KEYS)
def test_only_the_algorithm_that_signed_checks(kind: str, name: str) -> None:
    """Every other name in the header refuses the very same signature, and so does every other key of ours."""
    judge = KINDS[kind][0]
    for algorithm in GOOD[name]:
        token = signed(kind, name, algorithm)
        assert judge(token) == "spiffe://example.org/agent"
        others = {*jose.ALGORITHMS, "none", "HS256", "HS384", "HS512", "EdDSA", "ES256K"} - {algorithm}
        for other in others:
            with pytest.raises(Untrusted):
                judge(under(token, alg=other))
        for other in KEYS.keys() - {name}:
            with pytest.raises(Untrusted):
                judge(under(token, kid=f"{kind}-{other}"))


@pytest.mark.clause("JWT-2", "WIT-3")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_public_key_is_no_shared_secret(kind: str, name: str, digest: str) -> None:
    """A MAC over what everybody can read, in each form a library might take the key for."""
    judge, claims, typ = KINDS[kind]
    public = KEYS[name].public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    secrets = [
        public.public_bytes(serialization.Encoding.PEM, spki),
        public.public_bytes(serialization.Encoding.PEM, spki).strip(),
        public.public_bytes(serialization.Encoding.DER, spki),
        json.dumps(jwk.of_jwt_key(f"{kind}-{name}", public)).encode(),
        b"",
    ]
    head = {"alg": f"HS{digest[3:]}", "kid": f"{kind}-{name}", **typ}
    text = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(claims).encode())}"
    for secret in secrets:
        mark = base64url(hmac.digest(secret, text.encode(), digest))
        with pytest.raises(Untrusted, match="one of the nine"):
            judge(f"{text}.{mark}")
        with pytest.raises(Untrusted):
            judge(under(f"{text}.{mark}", alg=GOOD[name][0]))


@pytest.mark.clause("JWT-11", "WIT-20")
@pytest.mark.parametrize("kind", KINDS)
def test_a_kid_reaches_into_no_other_domain_and_no_other_purpose(kind: str) -> None:
    """Theirs for our name, a WIT's for a bearer's and the other way round, and what only looks like one of ours."""
    judge, claims, typ = KINDS[kind]
    other = {"jwt": "wit", "wit": "jwt"}[kind]
    theirs = {"jwt": "theirs", "wit": "their-wit"}[kind]
    for kid in (theirs, f"{other}-p256", f"{kind}-P256", f" {kind}-p256", f"{kind}-p256\0", "", f"../{kind}-p256"):
        for key in (FOREIGN_KEY, KEYS["p256"]):
            with pytest.raises(Untrusted):
                judge(jose.sign({"alg": "ES256", "kid": kid, **typ}, claims, key))
    with pytest.raises(Untrusted):
        judge(jose.sign({"alg": "ES256", "kid": f"{kind}-p256", **typ}, claims, FOREIGN_KEY))


@pytest.mark.parametrize("member", ["jwk", "x5c", "jku", "x5u"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_header_brings_no_key_along(kind: str, member: str) -> None:
    """A bearer's may not hold one at all; in a WIT's it is ignored, and only a bundle's key counts."""
    judge, claims, typ = KINDS[kind]
    values = {
        "jwk": jwk.of_jwt_key(f"{kind}-p256", FOREIGN_KEY.public_key()),
        "x5c": ["AAAA"],
        "jku": "https://foreign.org/keys",
        "x5u": "https://foreign.org/certificate",
    }
    head = {"alg": "ES256", "kid": f"{kind}-p256", **typ, member: values[member]}
    with pytest.raises(Untrusted):
        judge(jose.sign(head, claims, FOREIGN_KEY))
    honest = jose.sign(head, claims, KEYS["p256"])
    if kind == "wit":
        assert judge(honest) == "spiffe://example.org/agent"
    else:
        with pytest.raises(Untrusted, match="header holds more"):
            judge(honest)


@pytest.mark.clause("WIT-16")
@pytest.mark.parametrize("algorithm", GOOD["rsa"])
def test_a_proof_uses_the_algorithm_its_wit_names_and_no_other_of_the_same_key(algorithm: str) -> None:
    """An RSA key can sign in six ways, and the WIT allows one."""
    element = jwk.of_confirmation(KEYS["rsa"].public_key()) | {"alg": algorithm}
    token = jose.sign(
        {"alg": "ES256", "kid": "wit-p256", "typ": "wit+jwt"}, CLAIMS | {"cnf": {"jwk": element}}, KEYS["p256"]
    )
    svid = WitSvid.of(token, KEYS["rsa"])
    made = proof.mint(svid, HERE, NOON)
    assert shown(token, made) == "spiffe://example.org/agent"
    _, claims = jose.take_apart(made, "a proof")
    for other in (*jose.ALGORITHMS, "HS256", "none"):
        if other != algorithm:
            with pytest.raises(Untrusted, match="another `alg`"):
                shown(token, under(made, alg=other))
        if other in GOOD["rsa"] and other != algorithm:
            with pytest.raises(Untrusted, match="another `alg`"):
                shown(token, jose.sign({"alg": other, "typ": "wpt+jwt"}, claims, KEYS["rsa"]))
            with pytest.raises(Untrusted, match="not signed by the key"):
                shown(token, under(jose.sign({"alg": other, "typ": "wpt+jwt"}, claims, KEYS["rsa"]), alg=algorithm))


def test_a_proof_is_no_mac_over_the_public_key_in_its_wit() -> None:
    """Neither as HS256, which no WIT can name, nor under the name it does."""
    token = jose.sign({"alg": "ES256", "kid": "wit-p256", "typ": "wit+jwt"}, WIT_CLAIMS, KEYS["p256"])
    made = proof.mint(WitSvid.of(token, HOLDER), HERE, NOON)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = HOLDER.public_key().public_bytes(serialization.Encoding.PEM, spki)
    for algorithm in ("HS256", "ES256"):
        text = under(made, alg=algorithm).rpartition(".")[0]
        mac = base64url(hmac.new(secret, text.encode(), hashlib.sha256).digest())
        with pytest.raises((Untrusted, Malformed)):
            shown(token, f"{text}.{mac}")


def shown(wit: str, made: str) -> str:
    """Who sends these two."""
    return str(proof.verify(wit, made, audiences=[HERE], bundles=BUNDLES, now=NOON, seen=ReplayCache()).id)
