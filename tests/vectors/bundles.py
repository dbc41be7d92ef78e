"""Vectors of bundles and bundle maps, and the junk that stands in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives import serialization

from vectors.authorities import FOREIGN, OWN, WITS


def pretty(value: object) -> bytes:
    """JSON for people."""
    return json.dumps(value, indent=1).encode() + b"\n"


def bundles() -> Iterator[tuple[str, bytes]]:
    """Bundles of `example.org`."""
    honest = json.loads(OWN.bundle().to_jwks())
    x509_key, jwt_key = honest["keys"]
    other = json.loads(FOREIGN.bundle().jwt_jwks())["keys"][0]
    yield "accepted_plain", pretty(honest)
    yield "accepted_no_keys_left", pretty({"keys": []})
    yield "accepted_unknown_members", pretty(honest | {"later": {"x": 1}})
    yield "accepted_unknown_use", pretty(honest | {"keys": [x509_key | {"use": "later-svid"}, jwt_key]})
    yield "accepted_missing_use", pretty(honest | {"keys": [{"kty": "EC"}, x509_key, jwt_key]})
    yield "accepted_unknown_kty", pretty(honest | {"keys": [x509_key, jwt_key | {"kty": "PQC"}]})
    yield "accepted_empty_x5c", pretty(honest | {"keys": [x509_key | {"x5c": []}, jwt_key]})
    yield "accepted_second_x5c_ignored", pretty(honest | {"keys": [x509_key | {"x5c": [*x509_key["x5c"], "!"]}]})
    yield "accepted_jwt_key_without_kid", pretty({"keys": [{k: v for k, v in jwt_key.items() if k != "kid"}]})
    yield from _no_bundles(honest)
    yield "refused_one_kid_for_two_keys", pretty({"keys": [jwt_key, other | {"kid": jwt_key["kid"]}]})
    yield "refused_one_kid_for_two_uses", pretty({"keys": [jwt_key, jwt_key | {"use": "wit-svid"}]})
    for name, element in _junk(x509_key, jwt_key).items():
        yield f"accepted_junk_{name}", pretty(honest | {"keys": [element, *honest["keys"]]})


def _no_bundles(honest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    bad: dict[str, Callable[[], object]] = {
        "refused_keys_missing": lambda: {"spiffe_sequence": 1},
        "refused_keys_no_array": lambda: {"keys": {}},
        "refused_sequence_is_a_text": lambda: honest | {"spiffe_sequence": "1"},
        "refused_sequence_negative": lambda: honest | {"spiffe_sequence": -1},
        "refused_refresh_hint_is_a_fraction": lambda: honest | {"spiffe_refresh_hint": 1.5},
        "refused_no_object": lambda: [honest],
    }
    for name, value in bad.items():
        yield name, pretty(value())
    yield "refused_duplicate_key", b'{"keys":[],"keys":[]}\n'
    yield "refused_nan", b'{"keys":[],"x":NaN}\n'
    yield "refused_cut_off", pretty(honest)[:-20]
    yield "refused_bytes_behind", pretty(honest) + b"\0"
    yield "refused_two_documents", pretty(honest) * 2
    yield "refused_byte_order_mark", b"\xef\xbb\xbf" + pretty(honest)
    yield "refused_no_utf_8", pretty(honest | {"x": "?"}).replace(b"?", b"\xff")
    yield "refused_half_a_surrogate_pair", b'{"keys":[],"x":"\\ud800"}\n'
    yield "refused_number_beyond_all", b'{"keys":[],"x":1e999}\n'
    yield "refused_deeper_than_deep", b'{"keys":' + b"[" * 5_000 + b"]" * 5_000 + b"}\n"
    yield "refused_an_element_that_is_null", pretty(honest | {"keys": [*honest["keys"], None]})


def _junk(x509_key: dict[str, Any], jwt_key: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Elements that are ignored, each beside the honest ones, whose keys still count and no others."""
    evil = jwt_key | {"kid": "evil"}
    encoded = x509_key["x5c"][0]
    leaf = OWN.certificate().public_bytes(serialization.Encoding.DER)
    behind = base64.b64encode(base64.b64decode(encoded) + b"\0").decode()
    foreign = base64.b64encode(FOREIGN.root.public_bytes(serialization.Encoding.DER)).decode()
    return {
        "nothing": {},
        "use_upper_case": evil | {"use": "JWT-SVID"},
        "use_sig": evil | {"use": "sig"},
        "use_is_a_list": evil | {"use": ["jwt-svid"]},
        "symmetric_key": {"kty": "oct", "k": "c2VjcmV0", "use": "jwt-svid", "kid": "evil"},
        "private_key": evil | {"d": jwt_key["x"]},
        "point_not_on_the_curve": evil | {"y": jwt_key["x"]},
        "unknown_curve": evil | {"crv": "secp256k1"},
        "coordinate_is_a_number": evil | {"x": 1},
        "coordinate_without_end": evil | {"x": "A" * 4096},
        "kid_is_a_number": evil | {"kid": 1},
        "kid_is_empty": evil | {"kid": ""},
        "rsa_of_1024_bits": {"kty": "RSA", "n": "_" + "w" * 170 + "w", "e": "AQAB", "use": "jwt-svid", "kid": "evil"},
        "rsa_exponent_1": {"kty": "RSA", "n": "_" + "w" * 341, "e": "AQ", "use": "jwt-svid", "kid": "evil"},
        "okp_key": {"kty": "OKP", "crv": "Ed25519", "x": jwt_key["x"], "use": "jwt-svid", "kid": "evil"},
        "x5c_is_a_text": x509_key | {"x5c": encoded},
        "x5c_is_no_base64": x509_key | {"x5c": ["-" + encoded[1:]]},
        "x5c_with_bytes_behind": x509_key | {"x5c": [behind]},
        "x5c_of_another_key": x509_key | {"x5c": [foreign]},
        "x5c_of_a_leaf": x509_key | {"x5c": [base64.b64encode(leaf).decode()]},
        "x5c_beside_no_key": {"kty": "EC", "use": "x509-svid", "x5c": [encoded]},
    }


def maps() -> Iterator[tuple[str, bytes]]:
    """Bundle maps."""
    ours, theirs = (json.loads(each.bundle().to_jwks()) for each in (WITS, FOREIGN))
    both = {"example.org": ours, "foreign.org": theirs}
    yield "accepted_two", pretty({"trust_domains": both})
    yield "accepted_empty", pretty({"trust_domains": {}})
    yield "accepted_unknown_members", pretty({"trust_domains": both, "later": 1})
    yield "accepted_hint_in_a_member", pretty({"trust_domains": {"example.org": ours | {"spiffe_refresh_hint": 1}}})
    yield "accepted_member_without_keys_left", pretty({"trust_domains": {"example.org": {"keys": []}}})
    whole = json.dumps(ours)
    yield "refused_a_domain_twice", f'{{"trust_domains":{{"example.org":{whole},"example.org":{whole}}}}}\n'.encode()
    yield "refused_trust_domains_twice", b'{"trust_domains":{},"trust_domains":{}}\n'
    bad: dict[str, object] = {
        "no_trust_domains": {},
        "a_plain_bundle": ours,
        "a_list": {"trust_domains": [both]},
        "a_member_that_is_null": {"trust_domains": {"example.org": None}},
        "a_member_without_keys": {"trust_domains": {"example.org": {}}},
        "a_bad_member_beside_a_good_one": {"trust_domains": both | {"other.org": {"keys": 1}}},
        "a_domain_as_spiffe_id": {"trust_domains": {"spiffe://example.org": ours}},
        "a_domain_in_upper_case": {"trust_domains": {"Example.org": ours}},
        "a_domain_with_a_path": {"trust_domains": {"example.org/agent": ours}},
        "a_domain_without_a_name": {"trust_domains": {"": ours}},
    }
    for name, value in bad.items():
        yield f"refused_{name}", pretty(value)
