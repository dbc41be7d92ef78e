"""WIT-SVID.md 6: the keys that sign WIT-SVIDs, in the bundle beside the others and never mixed with them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from ca.errors import Malformed
from ca.spiffe.bundle import MOST_KEYS, Bundle, BundleSet
from fakes.pki import TestAuthority, make_key
from fakes.wits import WitIssuer

ISSUER = WitIssuer(TestAuthority(seed="bundle"), "bundle")
BUNDLE = ISSUER.bundle()
DOMAIN = BUNDLE.trust_domain


def document() -> dict[str, Any]:
    """An honest bundle as JSON: X.509 authority, JWT authority, WIT authority."""
    read: dict[str, Any] = json.loads(BUNDLE.to_jwks())
    return read


def read(value: object) -> Bundle:
    """Read a document."""
    return Bundle.from_jwks(DOMAIN, json.dumps(value).encode())


def test_wit_19_the_three_kinds_are_read_as_they_were_written() -> None:
    """In a bundle and in a map of bundles."""
    assert read(document()) == BUNDLE
    assert [each["use"] for each in document()["keys"]] == ["x509-svid", "jwt-svid", "wit-svid"]
    again = BundleSet.from_json(BundleSet.of(BUNDLE).to_json()).get(DOMAIN)
    assert again is not None
    assert again.wit_authorities == BUNDLE.wit_authorities


@pytest.mark.clause("WL-12", "WL-20")
def test_wit_20_each_kind_is_told_alone() -> None:
    """No key of another use is in it."""
    for text, use in ((BUNDLE.wit_jwks(), "wit-svid"), (BUNDLE.jwt_jwks(), "jwt-svid")):
        assert [each["use"] for each in json.loads(text)["keys"]] == [use]
    element = json.loads(BUNDLE.wit_jwks())["keys"][0]
    assert set(element) == {"kty", "crv", "x", "y", "use", "kid"}
    assert json.loads(Bundle(trust_domain=DOMAIN).wit_jwks()) == {"keys": []}


def test_wit_19_one_kid_for_two_uses_is_refused() -> None:
    """Written or read, even for one and the same key."""
    key = make_key("twice").public_key()
    with pytest.raises(Malformed, match="one `kid`"):
        Bundle(trust_domain=DOMAIN, jwt_authorities={"k": key}, wit_authorities={"k": key})
    made = document()
    made["keys"][2]["kid"] = made["keys"][1]["kid"]
    with pytest.raises(Malformed, match="one `kid`"):
        read(made)


def test_wit_19_two_keys_under_one_kid_are_refused_and_the_same_twice_is_one() -> None:
    """Who signed would be a matter of luck."""
    made = document()
    made["keys"].append(made["keys"][2])
    assert read(made) == BUNDLE
    other = json.loads(Bundle(trust_domain=DOMAIN, wit_authorities={"wit-1": make_key("x").public_key()}).to_jwks())
    made["keys"].append(other["keys"][0])
    with pytest.raises(Malformed, match="two different keys"):
        read(made)


@pytest.mark.parametrize("change", [{"kid": ""}, {"kid": None}, {"kid": 7}, {"kty": "oct"}, {"d": "AA"}, {"crv": "?"}])
def test_an_element_that_can_be_no_authority_is_ignored(change: dict[str, object]) -> None:
    """The others still count."""
    made = document()
    made["keys"][2] |= change
    found = read(made)
    assert not found.wit_authorities
    assert found.jwt_authorities == BUNDLE.jwt_authorities


def test_wit_19_a_wit_authority_without_a_key_id_is_not_written() -> None:
    """Strict to write."""
    with pytest.raises(Malformed, match="WIT authority"):
        Bundle(trust_domain=DOMAIN, wit_authorities={"": make_key("x").public_key()})


@pytest.mark.clause("TB-2", "TB-3")
@pytest.mark.parametrize(
    "odd",
    [
        {"sequence": -1},
        {"sequence": 2**64},
        {"refresh_hint": timedelta(seconds=-1)},
        {"refresh_hint": timedelta(days=10_000)},
    ],
)
def test_a_number_that_no_reader_takes_is_not_written(odd: dict[str, Any]) -> None:
    """Strict to write."""
    with pytest.raises(Malformed, match="no reader"):
        Bundle(trust_domain=DOMAIN, **odd)


def test_the_number_of_wit_keys_is_bounded() -> None:
    """As that of the others."""
    made = document()
    made["keys"] += [made["keys"][2]] * MOST_KEYS
    with pytest.raises(Malformed, match="more than"):
        read(made)
