"""The header that proves a task by a key: RFC 9449's form, judged whole, and never more than a refusal for nonsense."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from broker.wire.proof import FRESH, mint, new_key, verify
from ca.errors import Unauthenticated
from fakes.nouns import NOW

KEY = new_key()
CLAIMS = {"jti": "0123456789abcdef", "htm": "POST", "htu": "/v1/x", "iat": int(NOW.timestamp())}
HEAD = {"alg": "ES256", "typ": "dpop+jwt", "jwk": KEY.as_dict(private=False)}


def signed(head: Any = None, claims: Any = None, key: ECKey = KEY) -> str:
    """A proof that differs from an honest one by what is given."""
    payload = claims if isinstance(claims, str) else json.dumps({**CLAIMS, **(claims or {})})
    return jws.serialize_compact({**HEAD, **(head or {})}, payload, key, algorithms=["ES256", "ES384"])


def test_an_honest_one() -> None:
    """Its thumbprint is the key's, its id its own."""
    made = verify(mint(KEY, "POST", "/v1/x", NOW), "POST", "/v1/x", NOW)
    assert made.thumbprint == KEY.thumbprint()
    assert len(made.id) >= 16
    assert verify(signed(), "POST", "/v1/x", NOW).id == CLAIMS["jti"]


@pytest.mark.parametrize("seconds", [-61, 61, -86400, 10**9])
def test_freshness_has_two_ends(seconds: int) -> None:
    """Neither old nor from the future."""
    with pytest.raises(Unauthenticated, match="fresh"):
        verify(signed(claims={"iat": int(NOW.timestamp()) + seconds}), "POST", "/v1/x", NOW)
    edge = NOW + FRESH
    assert verify(signed(), "POST", "/v1/x", edge).good_until == edge + timedelta(seconds=120)


@pytest.mark.parametrize(
    "claims",
    [
        {"htm": "GET"}, {"htm": "post"}, {"htu": "/v1/x/"}, {"htu": "/v1/x?a=1"}, {"htu": None}, {"jti": "short"},
        {"jti": "x" * 129}, {"jti": 12345678}, {"jti": None}, {"iat": True}, {"iat": "1"}, {"iat": None}, {"iat": 1e9},
        {"iat": -1}, {"iat": 10**30}, {"iat": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_a_claim_that_is_not_as_it_must_be(claims: dict[str, Any]) -> None:
    """Refused, whatever it is."""
    with pytest.raises(Unauthenticated):
        verify(signed(claims=claims), "POST", "/v1/x", NOW)


@pytest.mark.parametrize("claims", ["[]", "null", "1", '"x"', "{", "", "[" * 4000])
def test_claims_that_are_no_object(claims: str) -> None:
    """Refused."""
    with pytest.raises(Unauthenticated):
        verify(signed(claims=claims), "POST", "/v1/x", NOW)


@pytest.mark.parametrize(
    "head",
    [
        {"typ": "JWT"}, {"jwk": {}},
        {"jwk": {**KEY.as_dict(private=False), "crv": "P-384"}}, {"jwk": {**KEY.as_dict(private=False), "x": 1}},
        {"jwk": {**KEY.as_dict(private=False), "x": "AAAA"}}, {"jwk": KEY.as_dict(private=True)},
        {"jwk": new_key().as_dict(private=False)},
    ],
    ids=lambda head: str(head)[:40],
)  # fmt: skip
def test_a_head_that_is_not_as_it_must_be(head: dict[str, Any]) -> None:
    """Another type, no key, another's key, a private key: refused."""
    with pytest.raises(Unauthenticated):
        verify(signed(head), "POST", "/v1/x", NOW)


def test_no_other_algorithm() -> None:
    """Neither a symmetric one with the public key as its secret, nor none at all."""
    symmetric = OctKey.import_key(json.dumps(HEAD["jwk"]))
    forged = jws.serialize_compact({**HEAD, "alg": "HS256"}, json.dumps(CLAIMS), symmetric, algorithms=["HS256"])
    head, claims, _ = signed({"alg": "ES256"}).split(".")
    for header in (forged, f"{head}.{claims}.", f"{head}.{claims}", f"{head}.{claims}.AAAA"):
        with pytest.raises(Unauthenticated):
            verify(header, "POST", "/v1/x", NOW)


def test_length_is_bounded() -> None:
    """Before anything is decoded."""
    with pytest.raises(Unauthenticated, match="longer"):
        verify("a" * 4097, "POST", "/v1/x", NOW)


@given(header=some.one_of(some.text(max_size=300), some.from_regex(r"[\w-]{0,80}\.[\w-]{0,80}\.[\w-]{0,80}")))
@example("..")
@example("e30.e30.e30")
@example("W10.W10.W10")
@example("bnVsbA.e30.e30")
@example("MQ.e30.e30")
def test_nonsense_is_refused_and_nothing_worse(header: str) -> None:
    """Whatever stands there, it is a 401."""
    with pytest.raises(Unauthenticated):
        verify(header, "POST", "/v1/x", NOW)


@given(head=some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(
        ["alg", "typ", "jwk", "kty", "crv", "x", "y", "d", "crit", "b64"]), inner, max_size=6), max_leaves=12,
))  # fmt: skip
def test_any_json_for_a_head_is_refused_and_nothing_worse(head: Any) -> None:
    """Also where its fields are of other kinds than expected."""
    part = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated):
        verify(f"{part}.e30.AAAA", "POST", "/v1/x", NOW)
