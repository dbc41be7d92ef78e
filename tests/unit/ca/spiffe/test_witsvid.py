"""WIT-SVID.md, clause by clause: what a token must be before its holder has proven anything."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, RSAKey

from ca.errors import Malformed
from ca.spiffe import jose, jwk, jwtsvid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId
from ca.spiffe.witsvid import UnprovenWit, WitSvid, check
from fakes.pki import NOON, TestAuthority, make_key, sign_token
from fakes.wits import WitIssuer

ISSUER = WitIssuer(TestAuthority("example.org", seed="wit"), "wit")
FOREIGN = WitIssuer(TestAuthority("foreign.org", seed="wit"), "wit")
BUNDLES = BundleSet.of(ISSUER.bundle(), FOREIGN.bundle())
HOLDER = ISSUER.holder
ELEMENT = jwk.of_confirmation(HOLDER.public_key())


def refused(token: str, bundles: BundleSet = BUNDLES, now: datetime = NOON) -> str:
    """The sentence with which the token is refused; it never holds the token."""
    with pytest.raises((Untrusted, Malformed)) as caught:
        check(token, bundles, now)
    assert token not in str(caught.value) or not token
    return str(caught.value)


def confirming(value: object) -> str:
    """A token with another `cnf`."""
    return ISSUER.token(claims={"cnf": value})


def test_a_token_says_whom_it_names_and_proves_nobody() -> None:
    """Name, key, algorithm and times; no identity."""
    wit = check(ISSUER.token("/agent"), BUNDLES, NOON)
    assert wit.subject == "spiffe://example.org/agent"
    assert (wit.key, wit.algorithm) == (HOLDER.public_key(), "ES256")
    assert wit.expires_at == NOON + timedelta(minutes=5)


def test_wit_16_an_unproven_wit_holds_no_identity() -> None:
    """So nobody can hand one to what wants to know who is there."""
    wit = check(ISSUER.token(), BUNDLES, NOON)
    values = [getattr(wit, each.name) for each in dataclasses.fields(UnprovenWit)]
    assert not any(isinstance(value, SpiffeId) for value in values)
    assert not hasattr(wit, "id")


@pytest.mark.parametrize("value", [None, "", 7, ["wit-1"], "WIT-1", "jwt-1"])
def test_wit_1_kid_must_be_there_and_name_a_wit_authority(value: object) -> None:
    """Case counts, and a JWT authority is none."""
    assert "kid" in refused(ISSUER.token(header={"kid": value}))


@pytest.mark.parametrize("value", [None, "", "JWT", "JOSE", "WIT+JWT", "wpt+jwt", "a/wit+jwt", 7, ["wit+jwt"]])
def test_wit_2_typ_must_be_that_of_a_wit(value: object) -> None:
    """To the letter."""
    assert "typ" in refused(ISSUER.token(header={"typ": value}))


@pytest.mark.parametrize("value", [None, "none", "HS256", "EdDSA", "ES256K", "es256", 7, ["ES256"]])
def test_wit_3_alg_must_be_one_of_nine(value: object) -> None:
    """No MAC, nothing unsigned, nothing that is not in the table."""
    assert "one of the nine" in refused(ISSUER.token(header={"alg": value}))


def test_wit_4_header_members_nobody_knows_are_ignored_unless_critical() -> None:
    """Keys in the header are members nobody knows here."""
    known = {"x5t": "a", "jwk": jwk.of_confirmation(make_key("evil").public_key()), "jku": "https://evil.org", "u": [1]}
    assert check(ISSUER.token(header=known), BUNDLES, NOON).subject == "spiffe://example.org/agent"
    for crit in (["u"], [], None, ["exp"]):
        head = {"alg": "ES256", "kid": "wit-1", "typ": "wit+jwt", "u": 1, "crit": crit}
        claims = jose.take_apart(ISSUER.token(), "x")[1]
        assert "critical" in refused(sign_token(head, claims, ISSUER.key))


@pytest.mark.parametrize("value", [None, "", "agent", 7, "spiffe://example.org/a/", "spiffe://example.org/a\n", ["x"]])
def test_wit_5_sub_must_be_a_spiffe_id(value: object) -> None:
    """Without it nobody is named."""
    assert "sub" in refused(ISSUER.token(claims={"sub": value}))


@pytest.mark.parametrize("value", ["server", ["server"], [], "", {"a": 1}])
def test_wit_13_an_audience_is_refused(value: object) -> None:
    """It belongs into the proof; with one, an old verifier would take the token for a bearer's."""
    assert "aud" in refused(ISSUER.token(claims={"aud": value}))


def test_wit_9_exp_must_be_there_and_not_have_passed() -> None:
    """Five seconds of leeway."""
    for value in (None, "1795435200", True, -1, [1]):
        assert "exp" in refused(ISSUER.token(claims={"exp": value}))
    token = ISSUER.token(ttl=timedelta(minutes=1))
    end = NOON + timedelta(minutes=1) + jose.LEEWAY
    assert check(token, BUNDLES, end - timedelta(seconds=1)).token == token
    assert "expired" in refused(token, now=end)


def test_wit_9_the_end_of_time_is_a_time() -> None:
    """The last second there is, and the first, upset no arithmetic."""
    assert check(ISSUER.token(claims={"exp": 253_402_300_799, "nbf": 0}), BUNDLES, NOON).expires_at.year == 9999
    assert "not valid before" in refused(ISSUER.token(claims={"nbf": 253_402_300_799}))


@pytest.mark.clause("WIT-11")
def test_wit_10_nbf_in_the_future_is_refused() -> None:
    """And `iat` limits nothing."""
    later = jose.seconds(NOON + timedelta(minutes=1))
    assert "not valid before" in refused(ISSUER.token(claims={"nbf": later}))
    assert check(ISSUER.token(claims={"iat": later, "nbf": jose.seconds(NOON)}), BUNDLES, NOON).algorithm == "ES256"
    for claim in ("nbf", "iat"):
        assert claim in refused(ISSUER.token(claims={claim: "soon"}))


@pytest.mark.clause("WIT-8")
def test_wit_14_claims_nobody_knows_and_an_issuer_are_ignored() -> None:
    """`jti` is no protection against anything here."""
    token = ISSUER.token(claims={"jti": "1", "iss": "https://example.org", "https://example.org/x": [1]})
    assert check(token, BUNDLES, NOON).token == token
    assert check(token, BUNDLES, NOON).token == token


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        "jwk",
        {"jwk": None},
        {"jwk": [ELEMENT]},
        {"kid": "k"},
        {"jwk": {}},
        {"jwk": ELEMENT | {"kty": "OKP"}},
        {"jwk": ELEMENT | {"x": "AA"}},
        {"jwk": ELEMENT | {"crv": "secp256k1"}},
        {"jwk": {"kty": "oct", "k": "c2VjcmV0", "alg": "ES256"}},
        {"jwk": {"kty": "oct", "alg": "HS256"}},
    ],
)
def test_wit_6_cnf_must_hold_a_public_key_that_can_prove(value: object) -> None:
    """Present, a JWK, of a kind that signs."""
    assert "cnf" in refused(confirming(value))


@pytest.mark.parametrize("value", [None, "none", "HS256", "ES384", "RS256", "EdDSA", "", 7, ["ES256"]])
def test_wit_7_cnf_must_say_the_algorithm_of_its_key(value: object) -> None:
    """One of the nine, and one that goes with the key."""
    element = {name: member for name, member in (ELEMENT | {"alg": value}).items() if member is not None}
    assert "alg" in refused(confirming({"jwk": element}))


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_wit_6_a_private_key_in_cnf_is_refused(member: str) -> None:
    """Whoever reads the token could prove it."""
    assert "private" in refused(confirming({"jwk": ELEMENT | {member: "AA"}}))


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (ec.generate_private_key(ec.SECP384R1()), ("ES384",)),
        (ec.generate_private_key(ec.SECP521R1()), ("ES512",)),
        (rsa.generate_private_key(65537, 2048), ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ],
    ids=["P-384", "P-521", "RSA"],
)
def test_wit_7_every_algorithm_of_the_table_can_be_confirmed(key: Any, algorithms: tuple[str, ...]) -> None:
    """And the usual one is what we write."""
    element = jwk.of_confirmation(key.public_key())
    assert element["alg"] == algorithms[0]
    for algorithm in algorithms:
        wit = check(confirming({"jwk": element | {"alg": algorithm}}), BUNDLES, NOON)
        assert (wit.key, wit.algorithm) == (key.public_key(), algorithm)


def test_wit_20_only_a_wit_authority_of_its_own_trust_domain_signs() -> None:
    """Not a federated one, not the JWT authority, not a stranger under a known `kid`."""
    ours = {"sub": "spiffe://example.org/agent"}
    assert "not signed by the key" in refused(FOREIGN.token(claims=ours))
    assert "not signed by the key" in refused(ISSUER.token(key=make_key("stranger")))
    assert "not signed by the key" in refused(ISSUER.token(key=ISSUER.authority.jwt_key))
    assert check(FOREIGN.token(), BUNDLES, NOON).subject == "spiffe://foreign.org/agent"
    assert "no bundle" in refused(FOREIGN.token(), BundleSet.of(ISSUER.bundle()))
    without = BundleSet.of(ISSUER.authority.bundle())
    assert "no WIT authority" in refused(ISSUER.token(), without)


@pytest.mark.clause("ID-13", "WIT-20", "WL-12")
def test_a_wit_is_no_jwt_svid_and_a_jwt_svid_no_wit() -> None:
    """Neither by its type nor by the keys."""
    with pytest.raises(Untrusted, match="typ"):
        jwtsvid.verify(ISSUER.token(), "server", BUNDLES, NOON)
    assert "typ" in refused(ISSUER.authority.token())
    twin = Bundle(trust_domain=ISSUER.trust_domain, wit_authorities={"jwt-1": ISSUER.authority.jwt_key.public_key()})
    with pytest.raises(Untrusted, match="no JWT authority"):
        jwtsvid.verify(ISSUER.authority.token(), "server", BundleSet.of(twin), NOON)


def test_a_token_and_its_key_are_in_no_repr() -> None:
    """Law 4."""
    svid = ISSUER.svid()
    for value in (svid, check(svid.token, BUNDLES, NOON)):
        assert svid.token not in repr(value)
    assert json.loads(svid.key_jwk())["d"] not in repr(svid)


@pytest.mark.parametrize(
    "key",
    [make_key("own"), ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-256", "P-521", "RSA"],
)
def test_ones_own_is_read_as_it_was_written(key: Any) -> None:
    """As the Workload API carries it: the token, and a private JWK with its algorithm."""
    token = ISSUER.token(holder=key)
    svid = WitSvid.of(token, key, hint="main")
    again = WitSvid.parse(token, svid.key_jwk(), "main")
    assert again.private_key.private_numbers() == key.private_numbers()
    assert (again.id, again.algorithm, again.expires_at, again.hint) == (
        svid.id,
        svid.algorithm,
        NOON + timedelta(minutes=5),
        "main",
    )
    members = json.loads(svid.key_jwk())
    assert members["alg"] == svid.algorithm
    (ECKey if members["kty"] == "EC" else RSAKey).import_key(members)


def test_ones_own_needs_the_key_that_the_token_names() -> None:
    """Another, a public one, a symmetric one, and what is none."""
    token = ISSUER.token()
    other = WitSvid.of(ISSUER.token(holder=make_key("other")), make_key("other")).key_jwk()
    with pytest.raises(Malformed, match="not the one"):
        WitSvid.parse(token, other)
    for text in (
        "",
        "{}",
        "[]",
        json.dumps(ELEMENT),
        '{"kty":"oct","k":"AAAA"}',
        '{"kty":"EC"}',
        '{"kty":7}',
        "\ud800",
    ):
        with pytest.raises(Malformed, match="private key"):
            WitSvid.parse(token, text)
    with pytest.raises(Untrusted):
        WitSvid.parse(ISSUER.token(claims={"aud": "x"}), other)


@given(st.text(max_size=300))
def test_text_of_strangers_is_malformed_and_nothing_worse(text: str) -> None:
    """As a token and as a key."""
    with pytest.raises(Malformed):
        check(text, BUNDLES, NOON)
    with pytest.raises(Malformed):
        WitSvid.parse(ISSUER.token(), text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "d", "n", "e", "alg"]), _JSON))
def test_any_json_in_cnf_is_a_key_or_refused(element: dict[str, Any]) -> None:
    """And as one's own key, too."""
    with pytest.raises(Untrusted):
        check(confirming({"jwk": element}), BUNDLES, NOON)
    with pytest.raises(Malformed):
        WitSvid.parse(ISSUER.token(), json.dumps({"kty": "EC"} | element))
