"""Vectors of tokens: JWT-SVIDs, WIT-SVIDs and their proofs, and the games that are played with `alg`."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc.util import urlsafe_b64decode

from ca.spiffe import jose, jwk
from ca.spiffe.proof import Beside
from fakes.pki import NOON, base64url, make_key, sign_token
from fakes.wits import WitIssuer, make_proof
from vectors.authorities import FOREIGN, FOREIGN_WITS, ID, OWN, WITS

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def jwts() -> Iterator[tuple[str, str]]:
    """JWT-SVIDs."""
    head, body, mark = OWN.token().split(".")
    changes: dict[str, dict[str, Any]] = {
        "accepted_plain": {},
        "accepted_no_kid": {"header": {"kid": None}},
        "accepted_no_typ": {"header": {"typ": None}},
        "accepted_typ_jose": {"header": {"typ": "JOSE"}},
        "accepted_two_audiences": {"audience": ["other", "server"]},
        "accepted_audience_is_a_text": {"claims": {"aud": "server"}},
        "accepted_more_claims": {"claims": {"jti": "1", "https://example.org/x": {"y": [1, None]}}},
        "refused_no_sub": {"claims": {"sub": None}},
        "refused_sub_no_spiffe_id": {"claims": {"sub": "agent"}},
        "refused_sub_line_break": {"claims": {"sub": ID + "\n"}},
        "refused_no_aud": {"claims": {"aud": None}},
        "refused_empty_aud": {"claims": {"aud": []}},
        "refused_other_aud": {"audience": "other"},
        "refused_no_exp": {"claims": {"exp": None}},
        "refused_exp_is_a_text": {"claims": {"exp": "1795435200"}},
        "refused_expired": {"ttl": timedelta(minutes=-5)},
        "refused_not_before": {"claims": {"nbf": int((NOON + timedelta(minutes=5)).timestamp())}},
        "refused_typ_at_jwt": {"header": {"typ": "at+jwt"}},
        "refused_header_jku": {"header": {"jku": "https://foreign.org/keys"}},
        "refused_header_crit": {"header": {"crit": ["exp"], "exp": 1}},
        "refused_unknown_kid": {"header": {"kid": "jwt-9"}},
        "refused_header_jwk": {"header": {"jwk": jwk.of_jwt_key("jwt-1", make_key("other").public_key())}},
        "refused_header_x5c": {"header": {"x5c": ["AAAA"]}},
        "refused_kid_is_a_path": {"header": {"kid": "../../jwt-1"}},
        "refused_kid_is_a_list": {"header": {"kid": ["jwt-1"]}},
        "refused_kid_of_the_wit_key": {"header": {"kid": "wit-1"}, "key": WITS.key},
        "refused_key_of_the_x509_root": {"key": OWN.root_key},
        "refused_other_key_same_kid": {"key": make_key("other")},
    }
    for name, change in changes.items():
        yield name, OWN.token(**change)
    yield "accepted_federated", FOREIGN.token()
    yield "refused_sub_of_ours_by_a_federated_authority", FOREIGN.token(claims={"sub": ID})
    yield "refused_json_serialisation", json.dumps({"payload": body, "protected": head, "signature": mark})
    yield "refused_padding", f"{head}.{body}.{mark}=="
    yield "refused_two_parts", f"{head}.{body}"
    twice = json.dumps({"sub": ID, "aud": "server", "exp": 9_999_999_999})[:-1] + ',"sub":"spiffe://example.org/admin"}'
    yield "refused_duplicate_claim", sign_token({"alg": "ES256", "kid": "jwt-1"}, twice.encode(), OWN.jwt_key)
    foreign_key: dict[str, Any] = {"header": {"kid": FOREIGN.jwt_key_id}, "key": FOREIGN.jwt_key}
    yield "refused_key_of_a_federated_domain", OWN.token(**foreign_key)
    yield "refused_a_wit_svid", WITS.token()
    yield from _alg_games(OWN.token(), {"kid": OWN.jwt_key_id, "typ": "JWT"})


def _alg_games(token: str, header: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """One honest token under headers that would have a careless verifier check it otherwise."""
    _, body, mark = token.split(".")
    for name, algorithm in _NONE.items():
        head = _head(header, alg=algorithm)
        yield f"refused_alg_{name}", f"{head}.{body}."
        yield f"refused_alg_{name}_with_a_signature", f"{head}.{body}.{mark}"
    for algorithm in ("ES384", "ES512", "RS256", "PS256", "ES256K", "EdDSA", "HS384"):
        yield f"refused_alg_{algorithm.lower()}", f"{_head(header, alg=algorithm)}.{body}.{mark}"
    yield "refused_alg_in_lower_case", f"{_head(header, alg='es256')}.{body}.{mark}"
    for name, secret in _public_secrets().items():
        text = f"{_head(header, alg='HS256')}.{body}"
        digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()
        yield f"refused_alg_hs256_with_{name}", f"{text}.{base64url(digest)}"
    for name, signature in _crooked(urlsafe_b64decode(mark.encode())).items():
        yield f"refused_signature_{name}", f"{token.rpartition('.')[0]}.{base64url(signature)}"


_NONE = {"none": "none", "none_capital": "None", "none_upper_case": "NONE", "none_mixed_case": "nOnE", "empty": ""}


def _public_secrets() -> dict[str, bytes]:
    """What everybody knows, as the secret of a MAC."""
    public = OWN.jwt_key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return {
        "the_public_key_in_pem": public.public_bytes(serialization.Encoding.PEM, form),
        "the_public_key_in_der": public.public_bytes(serialization.Encoding.DER, form),
        "the_public_key_as_jwk": json.dumps(jwk.of_jwt_key(OWN.jwt_key_id, public)).encode(),
        "nothing": b"",
    }


def _crooked(raw: bytes) -> dict[str, bytes]:
    """Signatures that are none, or not in the one form they have (RFC 7518, 3.4)."""
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    return {
        "of_zeros": bytes(64),
        "of_the_order": ORDER.to_bytes(32, "big") * 2,
        "in_der": encode_dss_signature(r, s),
        "too_short": raw[:-1],
        "too_long": raw + b"\0",
        "halves_swapped": raw[32:] + raw[:32],
        "of_96_bytes": r.to_bytes(48, "big") + s.to_bytes(48, "big"),
    }


def _head(header: Mapping[str, Any], **changes: Any) -> str:
    return base64url(json.dumps({**header, **changes}).encode())


def wits() -> Iterator[tuple[str, str]]:
    """WIT-SVIDs."""
    element = jwk.of_confirmation(WITS.holder.public_key())
    later = jose.seconds(NOON + timedelta(minutes=5))
    changes: dict[str, dict[str, Any]] = {
        "accepted_plain": {},
        "accepted_unknown_header": {"header": {"x5t": "a", "jku": "https://foreign.org/keys"}},
        "accepted_unknown_claim": {"claims": {"https://example.org/x": [1], "jti": "1", "iss": "spiffe://example.org"}},
        "accepted_iat_ahead": {"claims": {"iat": later}},
        "accepted_nbf_now": {"claims": {"nbf": jose.seconds(NOON)}},
        "refused_no_kid": {"header": {"kid": None}},
        "refused_unknown_kid": {"header": {"kid": "wit-9"}},
        "refused_kid_of_a_jwt_key": {"header": {"kid": "jwt-1"}, "key": OWN.jwt_key},
        "refused_no_typ": {"header": {"typ": None}},
        "refused_typ_jwt": {"header": {"typ": "JWT"}},
        "refused_typ_wpt": {"header": {"typ": "wpt+jwt"}},
        "refused_typ_upper_case": {"header": {"typ": "WIT+JWT"}},
        "refused_header_crit": {"header": {"crit": ["exp"]}},
        "refused_no_sub": {"claims": {"sub": None}},
        "refused_sub_no_spiffe_id": {"claims": {"sub": "agent"}},
        "refused_aud": {"claims": {"aud": "server"}},
        "refused_empty_aud": {"claims": {"aud": []}},
        "refused_no_exp": {"claims": {"exp": None}},
        "refused_expired": {"ttl": timedelta(minutes=-5)},
        "refused_not_before": {"claims": {"nbf": later}},
        "refused_no_cnf": {"claims": {"cnf": None}},
        "refused_cnf_without_jwk": {"claims": {"cnf": {"kid": "k"}}},
        "refused_cnf_without_alg": {"claims": {"cnf": {"jwk": {k: v for k, v in element.items() if k != "alg"}}}},
        "refused_cnf_alg_none": {"claims": {"cnf": {"jwk": element | {"alg": "none"}}}},
        "refused_cnf_alg_hs256": {"claims": {"cnf": {"jwk": {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}}}},
        "refused_cnf_alg_of_another_key": {"claims": {"cnf": {"jwk": element | {"alg": "ES384"}}}},
        "refused_cnf_point_not_on_the_curve": {"claims": {"cnf": {"jwk": element | {"y": element["x"]}}}},
        "refused_cnf_private_key": {"claims": {"cnf": {"jwk": element | {"d": element["x"]}}}},
        "refused_signed_by_the_jwt_key": {"key": OWN.jwt_key},
        "refused_signed_by_its_holder": {"key": WITS.holder},
    }
    for name, change in changes.items():
        yield name, WITS.token(**change)
    yield "accepted_federated", FOREIGN_WITS.token()
    yield "refused_sub_of_ours_by_a_federated_authority", FOREIGN_WITS.token(claims={"sub": ID})
    yield "refused_a_jwt_svid", OWN.token()
    yield from _alg_games(WITS.token(), {"kid": WITS.key_id, "typ": "wit+jwt"})


def proofs() -> Iterator[tuple[str, str, str]]:
    """A WIT-SVID and what is shown as its proof."""
    svid, thief = WITS.svid(), make_key("a thief")
    stolen = jwk.of_confirmation(thief.public_key())
    fixed = {"jti": "AAAAAAAAAAAAAAAAAAAAAA"}
    changes: dict[str, dict[str, Any]] = {
        "accepted_plain": {},
        "accepted_audience_is_a_list_of_one": {"claims": {"aud": ["https://server.example.org/orders"]}},
        "accepted_unknown_claim": {"claims": {"https://example.org/x": 1}},
        "refused_another_key": {"key": thief},
        "refused_another_key_in_the_header": {"key": thief, "header": {"jwk": stolen}},
        "refused_signed_by_the_issuer": {"key": WITS.key},
        "refused_typ_jwt": {"header": {"typ": "JWT"}},
        "refused_no_typ": {"header": {"typ": None}},
        "refused_alg_none": {"header": {"alg": "none"}},
        "refused_alg_hs256": {"header": {"alg": "HS256"}},
        "refused_alg_es384": {"header": {"alg": "ES384"}},
        "refused_crit": {"header": {"crit": ["exp"]}},
        "refused_another_audience": {"audience": "https://other.example.org/orders"},
        "refused_two_audiences": {
            "claims": {"aud": ["https://server.example.org/orders", "https://other.example.org"]}
        },
        "refused_no_aud": {"claims": {"aud": None}},
        "refused_no_exp": {"claims": {"exp": None}},
        "refused_expired": {"ttl": timedelta(seconds=-30)},
        "refused_lives_an_hour": {"ttl": timedelta(hours=1)},
        "refused_not_before": {"claims": {"nbf": jose.seconds(NOON) + 60}},
        "refused_no_jti": {"claims": {"jti": None}},
        "refused_no_wth": {"claims": {"wth": None}},
        "refused_wth_of_another_wit": {"claims": {"wth": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}},
        "refused_access_token_that_is_not_there": {"beside": Beside(access_token="access")},
        "refused_other_token_that_is_not_there": {"beside": Beside(other={"x-token": "other"})},
    }
    for name, change in changes.items():
        yield name, svid.token, make_proof(svid, **{**change, "claims": fixed | change.get("claims", {})})
    foreign = _claiming(FOREIGN_WITS)
    yield "refused_wit_by_a_federated_authority", foreign.token, make_proof(foreign, claims=fixed)
    yield "refused_the_wit_again", svid.token, svid.token
    yield "refused_a_jwt_svid", svid.token, OWN.token()
    yield "refused_nothing", svid.token, ""


def _claiming(issuer: WitIssuer) -> Any:
    return issuer.svid(claims={"sub": ID})
