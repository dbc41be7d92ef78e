"""WIT-SVIDs as they are prepared and signed: what is in them, and each rule against one that breaks it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from joserfc.util import json_b64encode, urlsafe_b64decode

from ca import lint
from ca.errors import Malformed
from ca.keys.memory import MemoryKeyStore
from ca.lint import Unfit
from ca.lint.token import WIT_RULES
from ca.profiles import jwt, wit
from ca.profiles.prepared import MAKER, Issuer, Prepared
from ca.spiffe import jwk, witsvid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import TrustDomain
from fakes.authority import BEGIN, DOMAIN, INSTANCE, opened
from fakes.clock import ManualClock
from fakes.pki import make_key

HOLDER = make_key("holder")
ISSUER = Issuer(
    trust_domain=DOMAIN, key_id=b"k" * 20, not_before=BEGIN - timedelta(hours=1), not_after=BEGIN + timedelta(days=1)
)


def spki(key: Any) -> bytes:
    """A public key as the node agent sends it."""
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def prepared(issuer: Issuer = ISSUER, **changes: Any) -> Prepared:
    """An honest token."""
    honest = {
        "id": DOMAIN.member("/agent"),
        "public_key": spki(HOLDER),
        "instance": INSTANCE,
        "ttl": timedelta(minutes=5),
    }
    return wit.prepare(wit.WitRequest(**{**honest, **changes}), issuer, BEGIN)


def recoded(header: Mapping[str, Any], **claims: Any) -> Prepared:
    """The token with other members; a claim of None is left out."""
    one = prepared()
    head, body = (json.loads(urlsafe_b64decode(part)) for part in one.tbs.split(b"."))
    said = {name: value for name, value in {**body, **claims}.items() if value is not None}
    facts = {name: getattr(one, name) for name in Prepared.__slots__}
    return Prepared(MAKER, **{**facts, "tbs": json_b64encode({**head, **header}) + b"." + json_b64encode(said)})


def confirming(**members: object) -> Prepared:
    """The token with other members in its `cnf.jwk`."""
    element = jwk.of_confirmation(HOLDER.public_key()) | members
    return recoded({}, cnf={"jwk": {name: value for name, value in element.items() if value is not None}})


@pytest.mark.clause("WIT-8", "WIT-12", "WIT-13")
def test_wit_15_a_token_says_what_was_asked_and_nothing_else() -> None:
    """Header of three, claims of six, no audience and no issuer."""
    one = prepared()
    header, claims = (json.loads(urlsafe_b64decode(part)) for part in one.tbs.split(b"."))
    seconds = int(BEGIN.timestamp())
    assert header == {"alg": "ES256", "kid": jwt.kid(ISSUER.key_id), "typ": "wit+jwt"}
    element = claims.pop("cnf")["jwk"]
    assert claims == {
        "sub": "spiffe://example.org/agent",
        "iat": seconds,
        "exp": seconds + 300,
        "jti": f"{one.serial:032x}",
        "urn:sojourn:instance": INSTANCE,
    }
    assert set(element) == {"kty", "crv", "x", "y", "alg"}
    assert jwk.read_key(element) == HOLDER.public_key()
    lint.check(one, ISSUER)
    assert "urn:sojourn:instance" not in json.loads(urlsafe_b64decode(prepared(instance=None).tbs.split(b".")[1]))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ],
    ids=["P-384", "P-521", "RSA"],
)
def test_a_key_of_every_kind_of_the_standard_can_be_named(key: Any, algorithm: str) -> None:
    """With the algorithm that goes with it."""
    one = prepared(public_key=spki(key))
    lint.check(one, ISSUER)
    claims = json.loads(urlsafe_b64decode(one.tbs.split(b".")[1]))
    assert claims["cnf"]["jwk"]["alg"] == algorithm


@pytest.mark.parametrize(
    "public_key",
    [
        b"",
        b"\x30\x00",
        spki(HOLDER) + b"\0",
        spki(ed25519.Ed25519PrivateKey.generate()),
        spki(x25519.X25519PrivateKey.generate()),
        spki(ec.generate_private_key(ec.SECP256K1())),
        spki(rsa.generate_private_key(65537, 1024)),
        spki(dsa.generate_private_key(2048)),
        HOLDER.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    ],
)
def test_a_key_that_no_algorithm_of_the_standard_uses_is_refused(public_key: bytes) -> None:
    """And so is a private one, and one with bytes behind it."""
    with pytest.raises(Malformed, match="the key for a WIT-SVID"):
        prepared(public_key=public_key)


OTHER = TrustDomain.parse("foreign.org")
CASES: list[tuple[str, Prepared]] = [
    ("WIT-SVID, 2", recoded({"typ": "JWT"})),
    ("WIT-SVID, 2", recoded({"kid": "other"})),
    ("WIT-SVID, 2", recoded({"alg": "none"})),
    ("WIT-SVID, 2", recoded({"x5t": "a"})),
    ("WIT-SVID, 3.1", recoded({}, sub="spiffe://example.org/other")),
    ("WIT-SVID, 3.1", prepared(id=DOMAIN.id)),
    ("WIT-SVID, 3.1", prepared(id=OTHER.member("/agent"))),
    ("WIT-SVID, 3.2", recoded({}, cnf=None)),
    ("WIT-SVID, 3.2", recoded({}, cnf={"kid": "k"})),
    ("WIT-SVID, 3.2", recoded({}, cnf={"jwk": jwk.of_confirmation(HOLDER.public_key()), "kid": "k"})),
    ("WIT-SVID, 3.2", confirming(d="AA")),
    ("WIT-SVID, 3.2", confirming(alg=None)),
    ("WIT-SVID, 3.2", confirming(alg="ES384")),
    ("WIT-SVID, 3.2", confirming(kid="k")),
    ("WIT-SVID, 3.2", confirming(x="AA")),
    ("WIT-SVID, 3.4", recoded({}, exp=None)),
    ("WIT-SVID, 3.4", recoded({}, exp=9_999_999_999)),
    ("WIT-SVID, 3.4", prepared(ttl=timedelta(days=2))),
    ("WIT-SVID, 3.4", prepared(ttl=timedelta(0))),
    ("RFC 7519, 4.1.7", recoded({}, jti="1")),
    ("sojourn, instance", recoded({}, **{"urn:sojourn:instance": None})),
    ("WIT-SVID, 3.8", recoded({}, aud="server")),
    ("WIT-SVID, 3.8", recoded({}, iss="https://example.org")),
]


@pytest.mark.parametrize(("clause", "one"), CASES)
def test_each_rule_refuses_what_breaks_it(clause: str, one: Prepared) -> None:
    """And every other rule lets it pass or comes later."""
    with pytest.raises(Unfit) as caught:
        lint.check(one, ISSUER)
    assert caught.value.details["rule"] == clause
    assert "\n" not in str(caught.value)


def test_each_rule_has_a_case() -> None:
    """So none can be taken away unseen."""
    assert {clause for clause, _ in CASES} == {clause for clause, _ in WIT_RULES}


def test_a_wit_of_another_key_is_refused() -> None:
    """The bytes were made for one issuer."""
    with pytest.raises(Unfit, match="another key"):
        lint.check(prepared(), Issuer(**{**_facts(ISSUER), "key_id": b"o" * 20}))


@pytest.mark.clause("WIT-1", "WIT-19")
async def test_the_authority_signs_what_its_bundle_verifies(tmp_path: Path) -> None:
    """With a key of its own, which signs no JWT-SVID."""
    clock = ManualClock(BEGIN)
    async with opened(tmp_path, MemoryKeyStore(), clock) as authority:
        token = await authority.sign_wit(prepared(authority.wit_issuer(BEGIN)))
        bundle = authority.bundle(BEGIN)
        found = witsvid.check(token, BundleSet.of(bundle), BEGIN)
        assert (found.subject, found.key) == ("spiffe://example.org/agent", HOLDER.public_key())
        assert set(bundle.wit_authorities) == {jwt.kid(authority.wit_issuer(BEGIN).key_id)}
        assert bundle.wit_authorities.keys().isdisjoint(bundle.jwt_authorities)
        assert json.loads(bundle.wit_jwks())["keys"][0]["use"] == "wit-svid"


def _facts(issuer: Issuer) -> dict[str, Any]:
    return {name: getattr(issuer, name) for name in Issuer.__slots__}
