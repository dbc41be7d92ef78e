"""SPIFFE_Trust_Domain_and_Bundle.md, clause by clause, and the bundle sections of the two SVID documents."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.spiffe import jwtsvid, x509svid
from ca.spiffe.bundle import LONGEST_BUNDLE, Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import TrustDomain
from fakes.pki import NOON, TestAuthority, der_chain, make_key

AUTHORITY = TestAuthority(seed="bundle")
DOMAIN = AUTHORITY.trust_domain


def document() -> dict[str, Any]:
    """An honest bundle as JSON: element 0 is the X.509 authority, element 1 the token key."""
    read: dict[str, Any] = json.loads(AUTHORITY.bundle().to_jwks())
    return read


def read(value: object) -> Bundle:
    """Read a document that may be none."""
    return Bundle.from_jwks(DOMAIN, value if isinstance(value, bytes) else json.dumps(value).encode())


def changed(element: int, **members: object) -> Bundle:
    """Read an honest bundle with one element changed; None takes a member away."""
    made = document()
    key = made["keys"][element] | members
    made["keys"][element] = {name: value for name, value in key.items() if value is not None}
    return read(made)


def test_a_bundle_is_read_as_it_was_written() -> None:
    """Writing and reading are inverse."""
    assert read(AUTHORITY.bundle().to_jwks()) == AUTHORITY.bundle()


def test_tb_1_members_nobody_knows_are_ignored_and_never_needed() -> None:
    """A JWK Set may hold more; the bare `keys` are enough."""
    made = document() | {"more": {"x": [1, None]}}
    assert read(made) == AUTHORITY.bundle()
    bare = read({"keys": document()["keys"]})
    assert bare == AUTHORITY.bundle(sequence=None, refresh_hint=None)


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, None, 2**64, [1]])
def test_tb_2_a_sequence_that_is_no_64_bit_integer_is_refused(value: object) -> None:
    """A whole number from 0 to 2**64 - 1 or nothing."""
    with pytest.raises(Malformed, match="spiffe_sequence"):
        read(document() | {"spiffe_sequence": value})


def test_tb_2_a_sequence_keeps_its_64_bits() -> None:
    """Nothing is rounded through a float."""
    assert read(document() | {"spiffe_sequence": 2**64 - 1}).sequence == 2**64 - 1


@pytest.mark.parametrize("value", [-1, 1.5, "300", True, None, 10**12])
def test_tb_3_a_refresh_hint_that_is_no_number_of_seconds_is_refused(value: object) -> None:
    """A whole number of seconds that fits a year, or nothing."""
    with pytest.raises(Malformed, match="spiffe_refresh_hint"):
        read(document() | {"spiffe_refresh_hint": value})


def test_tb_3_a_refresh_hint_is_whole_seconds() -> None:
    """Written as an integer."""
    assert json.loads(AUTHORITY.bundle(refresh_hint=timedelta(minutes=5)).to_jwks())["spiffe_refresh_hint"] == 300


@pytest.mark.parametrize("value", [{}, {"keys": None}, {"keys": {}}, {"keys": [1]}, {"keys": ["x"]}, [], 1, "x"])
def test_tb_4_keys_must_be_an_array_of_objects(value: object) -> None:
    """A document without it is no bundle, rather than an empty one."""
    with pytest.raises(Malformed):
        read(value)


def test_tb_4_an_empty_bundle_trusts_nothing() -> None:
    """Every SVID of the domain is untrusted then."""
    empty = BundleSet.of(read({"keys": []}))
    with pytest.raises(Untrusted, match=r"no X\.509 authority"):
        x509svid.verify(der_chain(AUTHORITY.leaf().chain), empty, NOON)
    with pytest.raises(Untrusted, match="no JWT authority"):
        jwtsvid.verify(AUTHORITY.token(), "server", empty, NOON)


@pytest.mark.parametrize("use", [None, "JWT-SVID", "X509-svid", "sig", "wit-svid", "", 7, ["jwt-svid"], {"a": 1}])
@pytest.mark.parametrize("element", [0, 1])
def test_tb_5_an_element_of_unknown_use_is_ignored(element: int, use: object) -> None:
    """Missing, misspelt or of another kind: only that element is left out."""
    found = changed(element, use=use)
    assert len(found.x509_authorities) == (0 if element == 0 else 1)
    assert len(found.jwt_authorities) == (0 if element == 1 else 1)


@pytest.mark.parametrize("kind", [None, "ec", "OKP", "oct", "", 7, ["EC"], {}])
@pytest.mark.parametrize("element", [0, 1])
def test_tb_5_an_element_of_unknown_key_type_is_ignored(element: int, kind: object) -> None:
    """And the others still count."""
    found = changed(element, kty=kind)
    assert len(found.x509_authorities) + len(found.jwt_authorities) == 1


def test_tb_5_a_symmetric_key_never_verifies_a_token() -> None:
    """Whoever reads the bundle could sign with it."""
    secret = base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")
    assert not read({"keys": [{"kty": "oct", "use": "jwt-svid", "kid": "k", "k": secret}]}).jwt_authorities


def test_tb_6_only_members_the_standard_defines_are_written() -> None:
    """An element holds its key, its use, and `x5c` or `kid`."""
    x509_key, jwt_key = document()["keys"]
    assert set(x509_key) == {"kty", "crv", "x", "y", "use", "x5c"}
    assert set(jwt_key) == {"kty", "crv", "x", "y", "use", "kid"}
    assert set(document()) == {"keys", "spiffe_sequence", "spiffe_refresh_hint"}


def test_tb_7_a_bundle_map_is_read_as_it_was_written() -> None:
    """Each domain's bundle under its bare name, without a refresh hint of its own."""
    other = TestAuthority("other.org")
    bundles = BundleSet.of(AUTHORITY.bundle(refresh_hint=None), other.bundle(refresh_hint=None))
    assert list(BundleSet.from_json(bundles.to_json())) == list(bundles)
    hinted = json.loads(BundleSet.of(AUTHORITY.bundle()).to_json())["trust_domains"]["example.org"]
    assert "spiffe_refresh_hint" not in hinted


def test_tb_7_an_empty_bundle_map_is_legal() -> None:
    """It trusts nobody."""
    assert not list(BundleSet.from_json(b'{"trust_domains":{}}'))


@pytest.mark.parametrize(
    "text",
    [
        '{"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}}',
        '{"trust_domains":{},"trust_domains":{}}',
        '{"trust_domains":{"a":{"keys":[],"keys":[]}}}',
    ],
)
def test_tb_7_a_duplicate_key_is_refused(text: str) -> None:
    """Two readers of one document must not see two bundles."""
    with pytest.raises(Malformed, match="twice"):
        BundleSet.from_json(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"trust_domains":[]}',
        '{"trust_domains":{"a":1}}',
        '{"trust_domains":{"A":{"keys":[]}}}',
        '{"trust_domains":{"spiffe://a":{"keys":[]}}}',
        '{"trust_domains":{"a":{}}}',
    ],
)
def test_tb_7_a_bad_bundle_map_is_refused_whole(text: str) -> None:
    """Names are trust domains, values are bundles."""
    with pytest.raises(Malformed):
        BundleSet.from_json(text.encode())


@pytest.mark.clause("FED-5")
def test_tb_8_a_set_keeps_each_bundle_with_its_domain() -> None:
    """Looked up by exactly that domain, replaced only by a bundle of that domain, never pooled."""
    other = TestAuthority("other.org")
    bundles = BundleSet.of(AUTHORITY.bundle(), other.bundle())
    assert bundles.get(DOMAIN) == AUTHORITY.bundle()
    assert bundles.get(TrustDomain.parse("third.org")) is None
    newer = AUTHORITY.bundle(sequence=2)
    assert bundles.with_(newer).get(DOMAIN) == newer
    assert bundles.with_(newer).get(other.trust_domain) == other.bundle()
    assert bundles.get(DOMAIN) == AUTHORITY.bundle()
    assert list(bundles.without(DOMAIN)) == [other.bundle()]
    with pytest.raises(Malformed):
        BundleSet.of(AUTHORITY.bundle(), newer)


@pytest.mark.clause("X509-20", "X509-21")
def test_x509_22_an_authority_is_written_with_one_certificate_and_no_kid() -> None:
    """`use` is `x509-svid`, `x5c` holds exactly one, `kid` is absent."""
    element = document()["keys"][0]
    assert element["use"] == "x509-svid"
    assert len(element["x5c"]) == 1
    assert "kid" not in element


@pytest.mark.parametrize("x5c", [None, [], "", [""], [None], ["!"], ["AAAA"], {}, [[]]])
def test_x509_23_an_element_without_a_certificate_is_ignored(x5c: object) -> None:
    """Absent, empty or unreadable."""
    assert changed(0, x5c=x5c).x509_authorities == ()


def test_x509_24_all_but_the_first_certificate_are_ignored() -> None:
    """What stands behind it can't smuggle an authority in."""
    foreign = json.loads(TestAuthority("other.org").bundle().to_jwks())["keys"][0]["x5c"][0]
    own = document()["keys"][0]["x5c"][0]
    assert changed(0, x5c=[own, foreign]).x509_authorities == (AUTHORITY.root,)


def test_x509_20_a_certificate_of_another_key_than_shown_is_ignored() -> None:
    """RFC 7517, 4.7: the first certificate holds the element's own key."""
    foreign = json.loads(TestAuthority("other.org").bundle().to_jwks())["keys"][0]["x5c"][0]
    assert changed(0, x5c=[foreign]).x509_authorities == ()


def test_x509_11_a_leaf_in_a_bundle_is_no_authority() -> None:
    """A workload's certificate among the anchors would vouch for itself."""
    svid = AUTHORITY.leaf()
    with pytest.raises(Malformed, match="no authority"):
        Bundle(trust_domain=DOMAIN, x509_authorities=(svid.chain[0],))
    key = svid.private_key.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = json.loads(Bundle(trust_domain=DOMAIN, jwt_authorities={"k": key}).to_jwks())["keys"][0]
    encoded = base64.b64encode(der_chain(svid.chain)[0]).decode()
    assert read({"keys": [numbers | {"use": "x509-svid", "x5c": [encoded]}]}).x509_authorities == ()


def test_jwt_10_only_token_keys_with_a_kid_count() -> None:
    """A consumer picks out `jwt-svid` keys; one without `kid` is none."""
    assert list(read(AUTHORITY.bundle().to_jwks()).jwt_authorities) == ["jwt-1"]
    for key_id in (None, "", 7, ["a"]):
        assert not changed(1, kid=key_id).jwt_authorities


@pytest.mark.clause("WL-15")
def test_jwt_10_the_workload_api_form_holds_only_token_keys() -> None:
    """No X.509 authority and no SPIFFE members (WL-15); an empty set is legal."""
    written = json.loads(AUTHORITY.bundle().jwt_jwks())
    assert set(written) == {"keys"}
    assert [each["use"] for each in written["keys"]] == ["jwt-svid"]
    assert json.loads(Bundle(trust_domain=DOMAIN).jwt_jwks()) == {"keys": []}


@pytest.mark.parametrize(
    "members",
    [
        {"x": "AAAA"},
        {"y": None},
        {"x": "!"},
        {"x": 1},
        {"crv": "P-257"},
        {"crv": ["P-256"]},
        {"x": "A" * 9999},
        {"d": "AA"},
    ],
)
def test_jwt_10_a_broken_key_is_ignored(members: dict[str, object]) -> None:
    """Off the curve, missing, of the wrong type, too long, or showing its private half."""
    assert not changed(1, **members).jwt_authorities


def test_jwt_10_keys_no_algorithm_of_the_nine_can_use_are_ignored() -> None:
    """A short RSA key, a key with a monstrous exponent."""
    short = rsa.RSAPublicNumbers(65537, (1 << 1023) | 1).public_key()
    for weak in (short, ed25519.Ed25519PrivateKey.generate().public_key()):
        with pytest.raises(Malformed):
            Bundle(trust_domain=DOMAIN, jwt_authorities={"k": weak})  # type: ignore[dict-item]

    def number(value: int) -> str:
        return base64.urlsafe_b64encode(value.to_bytes(300, "big").lstrip(b"\0")).decode().rstrip("=")

    modulus = (1 << 2047) | 1
    for exponent, size in ((65537, (1 << 1023) | 1), ((1 << 64) | 1, modulus), (1, modulus), (0, modulus)):
        element = {"kty": "RSA", "use": "jwt-svid", "kid": "k", "e": number(exponent) or "AA", "n": number(size)}
        assert not read({"keys": [element]}).jwt_authorities
    fine = {"kty": "RSA", "use": "jwt-svid", "kid": "k", "e": "AQAB", "n": number(modulus)}
    assert list(read({"keys": [fine]}).jwt_authorities) == ["k"]
    assert json.loads(read({"keys": [fine]}).to_jwks())["keys"][0] == fine


def test_jwt_10_one_kid_for_two_keys_is_refused() -> None:
    """Which of them a token means must not depend on the reader."""
    made = document()
    made["keys"].append(made["keys"][1])
    assert len(read(made).jwt_authorities) == 1
    other = json.loads(TestAuthority("other.org").bundle().to_jwks())["keys"][1]
    with pytest.raises(Malformed, match="two different keys"):
        read({"keys": [made["keys"][1], other]})


def test_der_form_is_read_as_it_was_written() -> None:
    """The Workload API's concatenated certificates."""
    bundle = Bundle(trust_domain=DOMAIN, x509_authorities=(AUTHORITY.root, AUTHORITY.issuer, AUTHORITY.root))
    assert bundle.x509_authorities == (AUTHORITY.root, AUTHORITY.issuer)
    assert Bundle.from_der(DOMAIN, bundle.x509_der()) == bundle
    assert Bundle.from_der(DOMAIN, b"").x509_authorities == ()
    assert BundleSet.of(bundle).anchors_der() == tuple(der_chain(bundle.x509_authorities))


@pytest.mark.parametrize("cut", [1, 2, 3, 100, -1])
def test_der_form_that_is_cut_off_is_refused(cut: int) -> None:
    """Every byte belongs to a certificate."""
    data = AUTHORITY.bundle().x509_der()
    for broken in (data[:cut], data + data[:cut], data + b"\x30\x80", b"\x02\x01\x00", b"\x30\x83\xff\xff\xff"):
        with pytest.raises(Malformed):
            Bundle.from_der(DOMAIN, broken)


def test_sizes_are_bounded() -> None:
    """Too long a document, too many keys."""
    with pytest.raises(Malformed, match="longer"):
        read(b" " * LONGEST_BUNDLE + b'{"keys":[]}')
    with pytest.raises(Malformed, match="longer"):
        Bundle.from_der(DOMAIN, bytes(LONGEST_BUNDLE + 1))
    with pytest.raises(Malformed, match="more than 256"):
        read({"keys": [document()["keys"][1]] * 257})
    with pytest.raises(Malformed, match="more than 256"):
        read({"keys": [document()["keys"][0]] * 257})
    with pytest.raises(Malformed, match="more than 256"):
        Bundle.from_der(DOMAIN, AUTHORITY.bundle().x509_der() * 257)


@pytest.mark.parametrize(
    "text",
    [
        '{"keys":[],"keys":[]}',
        '{"keys":[{"kty":"EC","kty":"RSA"}]}',
        '{"keys":[],"x":NaN}',
        '{"keys":[],"x":Infinity}',
        '{"keys":[],"x":1e999}',
        '{"keys":[],"x":' + "9" * 5000 + "}",
        '{"keys":[],"x":"\\ud800"}',
        '{"keys":[],"\\udfff":1}',
        '{"keys":' + "[" * 100_000,
        '{"keys":[],"x":' + '{"x":' * 5000 + "1" + "}" * 5001,
        '{"keys":[]}x',
        "\ufeff{}",
        "",
    ],
)
def test_hostile_json_is_malformed(text: str) -> None:
    """Duplicates, numbers that are none, half a surrogate pair, bottomless nesting."""
    with pytest.raises(Malformed):
        read(text.encode())


def test_bytes_that_are_no_utf_8_are_malformed() -> None:
    """JSON is UTF-8."""
    with pytest.raises(Malformed):
        read(b'{"keys":[],"x":"\xff"}')


_json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["EC", "RSA", "jwt-svid", "AQAB"]),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["kty", "use", "kid", "x5c", "x"]), inner)
    ),
    max_leaves=20,
)


@given(st.binary() | _json_values.map(json.dumps).map(str.encode))
@pytest.mark.parametrize(
    "reader",
    [lambda data: Bundle.from_jwks(DOMAIN, data), lambda data: Bundle.from_der(DOMAIN, data), BundleSet.from_json],
    ids=["jwks", "der", "map"],
)
def test_any_bytes_are_a_bundle_or_malformed(reader: Callable[[bytes], object], data: bytes) -> None:
    """No other exception, whatever arrives."""
    try:
        reader(data)
    except Malformed:
        return


@given(st.dictionaries(st.sampled_from(["kty", "use", "kid", "x5c", "x", "y", "crv", "n", "e"]), _json_values))
def test_any_element_is_a_key_or_ignored(element: dict[str, object]) -> None:
    """One strange element takes nothing else down."""
    made = document()
    data = json.dumps({"keys": [*made["keys"], element]}).replace("NaN", "0").replace("Infinity", "0").encode()
    try:
        assert read(data).x509_authorities == (AUTHORITY.root,)
    except Malformed as error:
        assert "JSON" in str(error) or "twice" in str(error) or "two different" in str(error)  # noqa: PT017


def test_a_bundle_can_not_be_changed() -> None:
    """What was verified against stays what it was."""
    keys = {"k": make_key().public_key()}
    bundle = Bundle(trust_domain=DOMAIN, jwt_authorities=keys)
    keys.clear()
    assert list(bundle.jwt_authorities) == ["k"]
