"""JWT-SVID.md, clause by clause."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from ca.errors import Malformed
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.jwtsvid import LEEWAY, LONGEST_TOKEN, JwtSvid, parse_unverified, verify
from fakes.pki import NOON, TestAuthority, base64url, make_key, sign_token

AUTHORITY = TestAuthority(seed="jwt")
BUNDLES = BundleSet.of(AUTHORITY.bundle())
CLAIMS = {"sub": "spiffe://example.org/agent", "aud": ["server"], "exp": int((NOON + timedelta(minutes=5)).timestamp())}


def seen(token: str, bundles: BundleSet = BUNDLES, now: datetime = NOON, audience: str = "server") -> JwtSvid:
    """What the token says to `server` at noon."""
    return verify(token, audience, bundles, now)


def refused(token: str, bundles: BundleSet = BUNDLES, now: datetime = NOON, audience: str = "server") -> str:
    """The sentence with which the token is refused; it never holds the token."""
    with pytest.raises((Untrusted, Malformed)) as caught:
        seen(token, bundles, now, audience)
    assert token not in str(caught.value) or not token
    return str(caught.value)


def encoded(value: object) -> str:
    """A part of a token."""
    return base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def test_a_token_is_who_its_subject_says() -> None:
    """Id, audience, time and claims are those that were signed."""
    token = AUTHORITY.token("/agent", ["server", "other"], claims={"task": {"id": "t"}})
    svid = seen(token)
    assert str(svid.id) == "spiffe://example.org/agent"
    assert svid.audience == ("server", "other")
    assert svid.expires_at == NOON + timedelta(minutes=5)
    assert svid.claims["task"] == {"id": "t"}
    assert svid.token == token


def test_law_4_a_token_is_in_no_repr() -> None:
    """Neither the token nor its claims."""
    token = AUTHORITY.token(claims={"jti": "very-private"})
    assert token not in repr(seen(token))
    assert "very-private" not in repr(seen(token))


@pytest.mark.parametrize(
    "form",
    [
        lambda head, body, mark: json.dumps({"payload": body, "protected": head, "signature": mark}),
        lambda head, body, mark: json.dumps({"payload": body, "signatures": [{"protected": head, "signature": mark}]}),
        lambda head, body, mark: f"{head}.{body}",
        lambda head, body, mark: f"{head}.{body}.{mark}.{mark}",
        lambda head, body, mark: f"{head}..{mark}",
        lambda head, body, mark: f".{body}.{mark}",
        lambda head, body, mark: f"{head}.{body}.",
        lambda head, body, mark: f"{head}=.{body}.{mark}",
        lambda head, body, mark: f"{head}.{body}.{mark}==",
        lambda head, body, mark: f"{head}.{body}.{mark}\n",
        lambda head, body, mark: f" {head}.{body}.{mark}",
        lambda head, body, mark: f"{head}.{body}.{mark[:-1]}" + ("B" if mark[-1] == "A" else "A"),
    ],
)
def test_jwt_1_only_the_compact_form_is_read(form: Any) -> None:
    """No JSON serialisation, no missing or further part, no padding, no white space, no second spelling."""
    refused(form(*AUTHORITY.token().split(".")))


@pytest.mark.parametrize("name", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_jwt_2_rsa_algorithms_are_accepted(name: str, rsa_key: rsa.RSAPrivateKey) -> None:
    """Six of the nine."""
    bundle = Bundle(trust_domain=AUTHORITY.trust_domain, jwt_authorities={"k": rsa_key.public_key()})
    header = {"alg": name, "kid": "k"}
    token = jws.serialize_compact(header, json.dumps(CLAIMS), RSAKey.import_key(rsa_key), algorithms=[name])
    assert str(seen(token, BundleSet.of(bundle)).id) == CLAIMS["sub"]


@pytest.mark.parametrize(
    ("name", "curve"), [("ES256", ec.SECP256R1()), ("ES384", ec.SECP384R1()), ("ES512", ec.SECP521R1())]
)
def test_jwt_2_elliptic_curve_algorithms_are_accepted(name: str, curve: ec.EllipticCurve) -> None:
    """The other three."""
    key = ec.generate_private_key(curve)
    bundle = Bundle(trust_domain=AUTHORITY.trust_domain, jwt_authorities={"k": key.public_key()})
    header = {"alg": name, "kid": "k"}
    token = jws.serialize_compact(header, json.dumps(CLAIMS), ECKey.import_key(key), algorithms=[name])
    assert str(seen(token, BundleSet.of(bundle)).id) == CLAIMS["sub"]


@pytest.mark.parametrize("name", ["none", "None", "HS256", "EdDSA", "ES256K", "es256", "", None, 7, ["ES256"], {}])
def test_jwt_2_any_other_algorithm_is_refused(name: object) -> None:
    """Before any key is looked at."""
    _, body, mark = AUTHORITY.token().split(".")
    for signature in (mark, ""):
        assert "alg" in refused(f"{encoded({'alg': name, 'kid': 'jwt-1'})}.{body}.{signature}")


def test_jwt_2_a_public_key_is_never_taken_for_a_shared_secret() -> None:
    """The old confusion: HS256 over the bytes of the public key."""
    secret = OctKey.import_key(AUTHORITY.bundle().to_jwks())
    token = jws.serialize_compact({"alg": "HS256", "kid": "jwt-1"}, json.dumps(CLAIMS), secret, algorithms=["HS256"])
    assert "alg" in refused(token)


def test_jwt_2_an_algorithm_of_another_key_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    """ES384 does not go with a P-256 key, RS256 not with an elliptic curve."""
    token = jws.serialize_compact(
        {"alg": "RS256", "kid": "jwt-1"}, json.dumps(CLAIMS), RSAKey.import_key(rsa_key), algorithms=["RS256"]
    )
    assert "signed by no key" in refused(token)
    key = ec.generate_private_key(ec.SECP384R1())
    token = jws.serialize_compact(
        {"alg": "ES384", "kid": "jwt-1"}, json.dumps(CLAIMS), ECKey.import_key(key), algorithms=["ES384"]
    )
    assert "signed by no key" in refused(token)


def test_jwt_3_kid_and_typ_are_optional() -> None:
    """Without `kid` every key of the domain is tried; `typ` is `JWT`, `JOSE` or absent."""
    for header in ({"kid": None}, {"typ": None}, {"typ": "JOSE"}, {"kid": None, "typ": None}):
        assert seen(AUTHORITY.token(header=header)).id == AUTHORITY.id()
    assert "signed by no key" in refused(AUTHORITY.token(header={"kid": None}, key=make_key()))


@pytest.mark.parametrize("kind", ["jwt", "at+jwt", "", 7, ["JWT"], {}])
def test_jwt_3_another_typ_is_refused(kind: object) -> None:
    """A token made for another purpose is none of ours."""
    assert "typ" in refused(AUTHORITY.token(header={"typ": kind}))


def test_jwt_3_a_kid_nobody_knows_is_refused() -> None:
    """No other key is tried then."""
    assert "kid" in refused(AUTHORITY.token(header={"kid": "other"}))
    _, body, mark = AUTHORITY.token().split(".")
    for kid in (7, ["jwt-1"], {"a": 1}, ""):
        assert "kid" in refused(f"{encoded({'alg': 'ES256', 'kid': kid})}.{body}.{mark}")


@pytest.mark.parametrize(
    "extra",
    [
        {"jku": "https://evil"},
        {"jwk": {}},
        {"x5c": ["AA"]},
        {"crit": ["exp"]},
        {"b64": False},
        {"cty": "JWT"},
        {"zip": "DEF"},
    ],
)
def test_jwt_4_any_other_header_is_refused(extra: Mapping[str, object]) -> None:
    """Each of them is a way to bring a key or a meaning of one's own."""
    head, body, mark = AUTHORITY.token().split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "==")) | extra
    assert "header" in refused(f"{encoded(header)}.{body}.{mark}")


@pytest.mark.parametrize(
    "subject", [None, "", "agent", "spiffe://Example.org/a", "https://example.org", 7, ["x"], "a\n"]
)
def test_jwt_5_a_subject_that_is_no_spiffe_id_is_refused(subject: object) -> None:
    """To the letter of SPIFFE-ID.md."""
    assert "sub" in refused(AUTHORITY.token(claims={"sub": subject}))


@pytest.mark.parametrize("audience", [None, [], "", [""], 7, {}, [7], ["server", 7], ["server", ""]])
def test_jwt_6_a_token_without_an_audience_is_refused(audience: object) -> None:
    """At least one name, all of them texts."""
    assert "aud" in refused(AUTHORITY.token(claims={"aud": audience}))


def test_jwt_6_a_token_for_somebody_else_is_refused() -> None:
    """One's own name must be an element: exactly, not as a part of one."""
    for audience in ("other", "server2", "serve", "Server", ["a", "b"]):
        assert "another audience" in refused(AUTHORITY.token(audience=audience))
    assert seen(AUTHORITY.token(audience=["a", "server"])).id == AUTHORITY.id()
    assert seen(AUTHORITY.token(claims={"aud": "server"})).audience == ("server",)


def test_jwt_6_nobody_is_no_audience() -> None:
    """A validator has a name."""
    with pytest.raises(Malformed, match="audience"):
        verify(AUTHORITY.token(), "", BUNDLES, NOON)


@pytest.mark.parametrize("moment", [None, "1795435200", True, -1, 1e300, 10**30, [1], 253_402_300_800])
def test_jwt_7_a_token_without_a_readable_expiry_is_refused(moment: object) -> None:
    """Absent, no number, or no time there is."""
    assert "exp" in refused(AUTHORITY.token(claims={"exp": moment}))


def test_jwt_7_an_expired_token_is_refused() -> None:
    """After what honest clocks may differ by, to the second."""
    token = AUTHORITY.token(ttl=timedelta(minutes=5))
    end = NOON + timedelta(minutes=5)
    seen(token, now=end + LEEWAY - timedelta(seconds=1))
    assert "expired" in refused(token, now=end + LEEWAY)
    assert timedelta(minutes=1) >= LEEWAY


def test_jwt_7_a_token_from_the_future_is_refused() -> None:
    """`nbf` is kept when it is there."""
    later = (NOON + timedelta(minutes=1)).timestamp()
    assert "not valid before" in refused(AUTHORITY.token(claims={"nbf": later}))
    assert seen(AUTHORITY.token(claims={"nbf": later}), now=NOON + timedelta(minutes=1)).id == AUTHORITY.id()
    for claim in ("nbf", "iat"):
        assert claim in refused(AUTHORITY.token(claims={claim: "soon"}))


def test_jwt_7_the_end_of_time_is_a_time() -> None:
    """The last second there is, and a beginning before which nothing is, upset no arithmetic."""
    svid = seen(AUTHORITY.token(claims={"exp": 253_402_300_799, "nbf": 0, "iat": 0}))
    assert svid.expires_at.year == 9999
    for beyond in (253_402_300_800, 1e300, 10**400):
        assert "exp" in refused(AUTHORITY.token(claims={"exp": beyond}))
    assert "not valid before" in refused(AUTHORITY.token(claims={"nbf": 253_402_300_799}))


def test_jwt_8_other_claims_are_carried() -> None:
    """Registered and private ones; a token may be used again (7.1)."""
    token = AUTHORITY.token(claims={"jti": "1", "https://example.org/x": [1, {"y": None}]})
    assert seen(token).claims["https://example.org/x"] == [1, {"y": None}]
    assert seen(token) == seen(token)


@pytest.mark.clause("WL-12")
def test_jwt_10_a_key_for_x509_never_verifies_a_token() -> None:
    """The root's own key signs certificates and nothing else."""
    for key in (AUTHORITY.root_key, AUTHORITY.issuer_key):
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert "signed by no key" in refused(AUTHORITY.token(key=key))
        assert "signed by no key" in refused(AUTHORITY.token(key=key, header={"kid": None}))


def test_jwt_11_only_the_keys_of_the_subjects_domain_count() -> None:
    """A federated authority can't sign for us, not even with the same `kid`."""
    foreign = TestAuthority("foreign.org")
    both = BundleSet.of(AUTHORITY.bundle(), foreign.bundle())
    assert str(seen(foreign.token(), both).id) == "spiffe://foreign.org/agent"
    forged = foreign.token(claims={"sub": "spiffe://example.org/agent"})
    assert "signed by no key of `example.org`" in refused(forged, both)
    assert "no bundle" in refused(foreign.token())


def test_a_changed_token_is_refused() -> None:
    """Header and payload are what was signed."""
    head, body, mark = AUTHORITY.token().split(".")
    other = AUTHORITY.token("/admin").split(".")[1]
    assert "signed by no key" in refused(f"{head}.{other}.{mark}")
    assert "signed by no key" in refused(f"{encoded({'alg': 'ES256'})}.{body}.{mark}")
    zeros = encoded(bytes(64))
    assert "signed by no key" in refused(f"{head}.{body}.{zeros}")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"spiffe://a/b","sub":"spiffe://example.org/agent","aud":"server","exp":9999999999}',
        b'{"sub":NaN}',
        b'{"exp":1e999}',
        b'{"exp":' + b"9" * 5000 + b"}",
        b'{"x":' * 2000 + b"1" + b"}" * 2000,
        b"[" * 10_000,
        b'{"sub":"\\ud800"}',
        b"\xff",
        b"[]",
        b"null",
        b"",
    ],
)
def test_hostile_json_is_malformed(payload: bytes) -> None:
    """In the payload and in the header."""
    for token in (sign_token({"alg": "ES256"}, payload, make_key()), f"{encoded(payload)}.{encoded(CLAIMS)}.AA"):
        with pytest.raises(Malformed):
            seen(token)


def test_a_token_of_monstrous_size_is_malformed() -> None:
    """It is not even taken apart."""
    with pytest.raises(Malformed, match="longer"):
        seen(AUTHORITY.token(claims={"x": "a" * LONGEST_TOKEN}))


def test_a_client_reads_its_own_token_unverified() -> None:
    """Who fetched it has no keys at hand; it must still be a JWT-SVID."""
    token = AUTHORITY.token(now=NOON - timedelta(days=1))
    svid = parse_unverified(token, "main")
    assert (svid.id, svid.token, svid.hint) == (AUTHORITY.id(), token, "main")
    with pytest.raises(Untrusted):
        parse_unverified(AUTHORITY.token(claims={"aud": None}))


_parts = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", max_size=40)
_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_headers = st.fixed_dictionaries(
    {"alg": st.just("ES256") | _json_values}, optional={"kid": _json_values, "typ": _json_values}
)
_claims = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.just("spiffe://example.org/a") | _json_values,
        "aud": st.just("server") | _json_values,
        "exp": st.just(9_999_999_999) | _json_values,
        "nbf": _json_values,
        "iat": _json_values,
    },
)


@given(
    st.text()
    | st.tuples(_parts, _parts, _parts).map(".".join)
    | st.tuples(_headers.map(encoded), _claims.map(encoded), _parts).map(".".join)
)
def test_any_text_is_refused_as_malformed_or_untrusted(token: str) -> None:
    """No other exception, and never a yes without the key."""
    with pytest.raises((Malformed, Untrusted)):
        seen(token)


@given(_headers, _claims)
def test_any_signed_claims_are_a_token_or_refused(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Signed by the right key, said by a mad issuer: still no surprise."""
    token = sign_token(header | {"alg": "ES256"}, claims, AUTHORITY.jwt_key)
    try:
        svid = seen(token)
    except (Malformed, Untrusted):
        return
    assert svid.audience == ("server",)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    """One for all tests: making it is slow."""
    return rsa.generate_private_key(65537, 2048)
