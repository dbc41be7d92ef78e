"""The proof that goes with a WIT (draft-ietf-wimse-wpt): who sent this message, once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Exhausted, Malformed
from ca.spiffe import jose, jwk
from ca.spiffe.bundle import BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.proof import LONGEST_PROOF, Beside, WitPeer, mint, shown, verify
from ca.spiffe.replay import ReplayCache, Replayed
from fakes.pki import NOON, TestAuthority, make_key
from fakes.wits import HERE, WitIssuer, make_proof

ISSUER = WitIssuer(TestAuthority("example.org", seed="proof"), "proof")
FOREIGN = WitIssuer(TestAuthority("foreign.org", seed="proof"), "proof")
BUNDLES = BundleSet.of(ISSUER.bundle(), FOREIGN.bundle())
SVID = ISSUER.svid("/agent", claims={"urn:sojourn:instance": "0123456789abcdef" * 2})
NOTHING = Beside()


def seen(proof: str, wit: str = SVID.token, *, now: datetime = NOON, beside: Beside = NOTHING) -> WitPeer:
    """Who sends these two to `HERE`, and was not seen before."""
    return verify(wit, proof, audiences={HERE}, bundles=BUNDLES, now=now, seen=ReplayCache(), beside=beside)


def refused(proof: str, wit: str = SVID.token, *, now: datetime = NOON, beside: Beside = NOTHING) -> str:
    """The sentence with which the two are refused; neither is in it."""
    with pytest.raises((Untrusted, Malformed)) as caught:
        seen(proof, wit, now=now, beside=beside)
    assert wit not in str(caught.value)
    assert proof not in str(caught.value) or not proof
    return str(caught.value)


def test_wit_18_a_wit_with_its_proof_is_a_peer() -> None:
    """Id, instance and the end of the WIT."""
    peer = seen(mint(SVID, HERE, NOON))
    assert str(peer.id) == "spiffe://example.org/agent"
    assert peer.instance == "0123456789abcdef" * 2
    assert peer.not_after == NOON + timedelta(minutes=5)
    assert SVID.token not in repr(peer)
    odd = ISSUER.svid("/x", claims={"urn:sojourn:instance": "?"})
    assert seen(make_proof(odd), odd.token).instance is None


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "P-521", "RSA"],
)
def test_a_proof_is_signed_by_whatever_key_the_wit_names(key: Any) -> None:
    """With its algorithm."""
    svid = ISSUER.svid(holder=key)
    assert seen(mint(svid, HERE, NOON), svid.token).id == svid.id


def test_wit_16_a_wit_alone_is_nobody() -> None:
    """Not with nothing, not with itself, not with a JWT-SVID."""
    for proof in ("", SVID.token, ISSUER.authority.token(), "a.b.c"):
        refused(proof)


def test_wit_16_another_key_proves_nothing() -> None:
    """Also when the header brings the key along."""
    thief = make_key("thief")
    stolen = make_proof(SVID, key=thief, header={"jwk": jwk.of_confirmation(thief.public_key())})
    assert "not signed by the key" in refused(stolen)
    assert "not signed by the key" in refused(make_proof(SVID, key=ISSUER.key))


def test_a_proof_goes_with_one_wit() -> None:
    """Another WIT of the same key is another; so a renewed one needs new proofs."""
    renewed = ISSUER.token(now=NOON + timedelta(seconds=1))
    assert "another WIT" in refused(make_proof(SVID), renewed)
    for value in (None, "", 7, "AAAA"):
        assert "another WIT" in refused(make_proof(SVID, claims={"wth": value}))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": None}, "typ"),
        ({"typ": "JWT"}, "typ"),
        ({"typ": "wit+jwt"}, "typ"),
        ({"alg": None}, "alg"),
        ({"alg": "none"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "ES384"}, "alg"),
        ({"alg": ["ES256"]}, "alg"),
        ({"crit": ["exp"]}, "critical"),
    ],
)
def test_the_header_says_what_it_is_and_the_algorithm_of_the_wit(header: Mapping[str, Any], reason: str) -> None:
    """The WIT chooses the algorithm, never the sender."""
    assert reason in refused(make_proof(SVID, header=header))


@pytest.mark.parametrize("value", [None, "", 7, [], HERE[:-1], HERE + "/", [HERE, HERE], {"a": HERE}])
def test_a_proof_is_for_one_audience(value: object) -> None:
    """Exactly one that the verifier was told to be."""
    assert "another audience" in refused(make_proof(SVID, claims={"aud": value}))


def test_audiences_are_names_and_no_text() -> None:
    """A text in the place of a set would match every part of it; a list of one is one."""
    with pytest.raises(Untrusted, match="another audience"):
        verify(SVID.token, make_proof(SVID), audiences=HERE + "x", bundles=BUNDLES, now=NOON, seen=ReplayCache())
    assert seen(make_proof(SVID, claims={"aud": [HERE]})).id == SVID.id


def test_wit_21_a_proof_is_short() -> None:
    """Not expired, not for long, not from the future."""
    for value in (None, "soon", True):
        assert "exp" in refused(make_proof(SVID, claims={"exp": value}))
    late = NOON + timedelta(seconds=30) + jose.LEEWAY
    assert "expired" in refused(make_proof(SVID), now=late)
    assert seen(make_proof(SVID), now=late - timedelta(seconds=1)).id == SVID.id
    assert "longer than any proof" in refused(make_proof(SVID, ttl=LONGEST_PROOF + timedelta(seconds=6)))
    assert seen(make_proof(SVID, ttl=LONGEST_PROOF)).id == SVID.id
    assert "longer than any proof" in refused(make_proof(SVID, claims={"exp": 253_402_300_799}))
    for claim in ("nbf", "iat"):
        assert "not valid yet" in refused(make_proof(SVID, claims={claim: 253_402_300_799}))
        assert "not valid yet" in refused(make_proof(SVID, claims={claim: jose.seconds(NOON) + 60}))


def test_an_expired_wit_is_proven_by_nothing() -> None:
    """The WIT's own rules hold first."""
    assert "expired" in refused(make_proof(SVID, now=NOON + timedelta(minutes=6)), now=NOON + timedelta(minutes=6))
    foreign = FOREIGN.svid("/agent", claims={"sub": str(SVID.id)})
    assert "not signed by the key" in refused(make_proof(foreign), foreign.token)


@pytest.mark.parametrize("value", [None, "", 7, "x" * 257, ["x"]])
def test_a_proof_has_a_number(value: object) -> None:
    """Without it nobody can tell the second showing."""
    assert "jti" in refused(make_proof(SVID, claims={"jti": value}))


def test_wit_22_a_proof_is_accepted_once() -> None:
    """The same number again, in the same token or in another; with another WIT it is another."""
    cache, proof = ReplayCache(), make_proof(SVID, claims={"jti": "1"})

    def show(token: str, wit: str = SVID.token) -> WitPeer:
        return verify(wit, token, audiences=[HERE], bundles=BUNDLES, now=NOON, seen=cache)

    show(proof)
    for again in (proof, make_proof(SVID, claims={"jti": "1"}, ttl=timedelta(seconds=40))):
        with pytest.raises(Replayed):
            show(again)
    show(make_proof(SVID, claims={"jti": "2"}))
    other = ISSUER.svid("/agent", now=NOON - timedelta(seconds=1))
    show(make_proof(other, claims={"jti": "1"}), other.token)


def test_what_is_not_proven_takes_no_room_in_the_cache() -> None:
    """Junk can't push the honest out."""
    cache = ReplayCache(most=8)
    for count in range(20):
        bad = make_proof(SVID, claims={"jti": str(count)}, audience="https://other.example.org")
        with pytest.raises(Untrusted):
            verify(SVID.token, bad, audiences=[HERE], bundles=BUNDLES, now=NOON, seen=cache)
    assert len(cache) == 0
    verify(SVID.token, make_proof(SVID), audiences=[HERE], bundles=BUNDLES, now=NOON, seen=cache)
    with pytest.raises(Exhausted):
        verify(SVID.token, make_proof(SVID), audiences=[HERE], bundles=BUNDLES, now=NOON, seen=cache)


BESIDE = Beside(access_token="access", transaction_token="txn", other={"x-token": " other "})


def test_the_tokens_beside_it_are_bound_to_the_proof() -> None:
    """None may be taken away, put in or exchanged; `oth` counts the value without spaces around it."""
    proof = mint(SVID, HERE, NOON, beside=BESIDE)
    assert seen(proof, beside=BESIDE).id == SVID.id
    assert seen(proof, beside=Beside(access_token="access", transaction_token="txn", other={"x-token": "other"}))
    for other, claim in (
        (NOTHING, "ath"),
        (Beside(access_token="x", transaction_token="txn", other={"x-token": "other"}), "ath"),
        (Beside(access_token="access", other={"x-token": "other"}), "tth"),
        (Beside(access_token="access", transaction_token="txn"), "oth"),
        (Beside(access_token="access", transaction_token="txn", other={"x-token": "other", "y": "z"}), "oth"),
    ):
        assert claim in refused(proof, beside=other)
        assert claim in refused(make_proof(SVID, beside=other), beside=BESIDE)
    assert "access" not in repr(BESIDE)
    with pytest.raises(Malformed, match="ASCII"):
        mint(SVID, HERE, NOON, beside=Beside(access_token="ä"))


def test_claims_nobody_knows_are_ignored() -> None:
    """As RFC 7519 has it."""
    assert seen(make_proof(SVID, claims={"https://example.org/x": [1]})).id == SVID.id


def test_wit_21_a_proof_that_nobody_would_believe_is_not_made() -> None:
    """Strict to write."""
    for ttl in (timedelta(0), timedelta(seconds=-1), LONGEST_PROOF + timedelta(seconds=1)):
        with pytest.raises(Malformed, match="lives longer"):
            mint(SVID, HERE, NOON, ttl=ttl)
    with pytest.raises(Malformed, match="audience"):
        mint(SVID, "", NOON)
    header, claims = jose.take_apart(mint(SVID, HERE, NOON), "a proof")
    assert header == {"alg": "ES256", "typ": "wpt+jwt"}
    assert set(claims) == {"aud", "exp", "jti", "wth"}


def test_wit_17_the_two_stand_in_their_own_headers_once() -> None:
    """Never in `Authorization`."""
    proof = mint(SVID, HERE, NOON)
    both = [("workload-IDENTITY-token", f" {SVID.token} "), ("Workload-Proof-Token", proof), ("X", "y")]
    assert shown(both) == (SVID.token, proof)
    for less, reason in ((both[:1], "Workload-Proof-Token"), (both[1:], "Workload-Identity-Token"), ([], "Identity")):
        with pytest.raises(Untrusted, match=reason):
            shown(less)
    with pytest.raises(Untrusted, match="Identity"):
        shown([("Authorization", f"Bearer {SVID.token}"), both[1]])
    for twice in ([*both, both[0]], [*both, both[1]]):
        with pytest.raises(Malformed, match="and not more"):
            shown(twice)


@given(st.text(max_size=200))
def test_text_of_strangers_is_no_proof(text: str) -> None:
    """And nothing worse."""
    with pytest.raises(Malformed):
        seen(text)
