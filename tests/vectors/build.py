"""Makes the vectors beside it: `python tests/vectors/build.py`.

A vector is one file whose name says what it is, what must become of it, and why: `x509_refused_two_uri_sans.pem`,
`jwt_refused_alg_none.txt`, `bundle_accepted_unknown_use.json`. They are judged at `NOON` with the bundles in
`bundles.json`, tokens for the audience `server`. Keys come from a seed and signatures are deterministic, so building
again changes no byte; other implementations can be fed the same files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402

from ca.spiffe.bundle import BundleSet  # noqa: E402
from fakes.pki import NOON, Oddities, TestAuthority, base64url, make_key, sign_token  # noqa: E402

ID = "spiffe://example.org/agent"
OWN = TestAuthority("example.org", seed="vectors")
FOREIGN = TestAuthority("foreign.org", seed="vectors")
IMPOSTOR = TestAuthority("example.org", seed="impostor")


def build() -> dict[str, bytes]:
    """Every vector by its file name."""
    made = {"bundles.json": _pretty(json.loads(BundleSet.of(OWN.bundle(), FOREIGN.bundle()).to_json()))}
    made |= {f"x509_{name}.pem": _pem(chain) for name, chain in _chains()}
    made |= {f"jwt_{name}.txt": token.encode() + b"\n" for name, token in _tokens()}
    made |= {f"bundle_{name}.json": data for name, data in _bundles()}
    made |= {f"id_{name}.txt": text.encode() for name, text in _ids().items()}
    return made


def _chains() -> Iterator[tuple[str, tuple[x509.Certificate, ...]]]:
    common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agent")])
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.65980.99"), b"\x05\x00")
    leaves = {
        "accepted_plain": Oddities(),
        "accepted_with_subject": Oddities(subject=common),
        "accepted_with_dns_names": Oddities(dns_names=["agent.example.org"]),
        "accepted_no_extended_key_usage": Oddities(extended=None),
        "accepted_no_basic_constraints": Oddities(is_ca=None),
        "accepted_key_agreement": Oddities(key_usages=frozenset({"digital_signature", "key_agreement"})),
        "accepted_no_authority_key_id": Oddities(authority_key_id=False),
        "refused_two_uri_sans": Oddities(uris=[ID, "spiffe://example.org/other"]),
        "refused_no_uri_san": Oddities(uris=[], dns_names=["agent.example.org"]),
        "refused_no_san": Oddities(no_names=True),
        "refused_https_uri": Oddities(uris=["https://example.org/agent"]),
        "refused_no_path": Oddities(uris=["spiffe://example.org"]),
        "refused_trailing_slash": Oddities(uris=["spiffe://example.org/agent/"]),
        "refused_upper_case_domain": Oddities(uris=["spiffe://Example.org/agent"]),
        "refused_san_not_critical_without_subject": Oddities(names_critical=False),
        "refused_leaf_is_ca": Oddities(is_ca=True),
        "refused_no_key_usage": Oddities(key_usages=None),
        "refused_key_usage_not_critical": Oddities(key_usage_critical=False),
        "refused_no_digital_signature": Oddities(key_usages=frozenset({"key_agreement"})),
        "refused_key_cert_sign": Oddities(key_usages=frozenset({"digital_signature", "key_cert_sign"})),
        "refused_crl_sign": Oddities(key_usages=frozenset({"digital_signature", "crl_sign"})),
        "refused_only_client_auth": Oddities(extended=[ExtendedKeyUsageOID.CLIENT_AUTH]),
        "refused_only_server_auth": Oddities(extended=[ExtendedKeyUsageOID.SERVER_AUTH]),
        "refused_unknown_critical_extension": Oddities(extra=[(unknown, True)]),
    }
    for name, odd in leaves.items():
        yield name, OWN.chain(OWN.certificate(odd=odd))
    yield from _paths()


def _paths() -> Iterator[tuple[str, tuple[x509.Certificate, ...]]]:
    plain = OWN.certificate()
    yield "accepted_instance", OWN.chain(OWN.certificate(instance="0123456789abcdef" * 2))
    yield "accepted_root_shown", (*OWN.chain(plain), OWN.root)
    yield "accepted_federated", FOREIGN.chain(FOREIGN.certificate())
    yield "refused_id_of_ours_by_a_federated_authority", FOREIGN.chain(FOREIGN.certificate(odd=Oddities(uris=[ID])))
    yield "refused_same_names_other_keys", IMPOSTOR.chain(IMPOSTOR.certificate())
    yield "refused_intermediate_missing", (plain,)
    yield "refused_issuer_as_leaf", (OWN.issuer,)
    yield "refused_expired", OWN.chain(OWN.certificate(now=NOON - timedelta(hours=2)))
    yield "refused_not_yet_valid", OWN.chain(OWN.certificate(now=NOON + timedelta(hours=2)))
    child = TestAuthority("example.org", seed="child", intermediate=False)
    child.issuer_key = make_key("a workload that signs")
    child.issuer = OWN.certificate("/evil", odd=Oddities(key=child.issuer_key))
    yield "refused_signed_by_a_workload", (child.certificate(), *OWN.chain(child.issuer))


def _tokens() -> Iterator[tuple[str, str]]:
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
        "refused_key_of_the_x509_root": {"key": OWN.root_key},
        "refused_other_key_same_kid": {"key": make_key("other")},
    }
    for name, change in changes.items():
        yield name, OWN.token(**change)
    yield "accepted_federated", FOREIGN.token()
    yield "refused_sub_of_ours_by_a_federated_authority", FOREIGN.token(claims={"sub": ID})
    for name in ("none", "HS256", "EdDSA"):
        yield f"refused_alg_{name.lower()}", f"{base64url(json.dumps({'alg': name, 'kid': 'jwt-1'}).encode())}.{body}."
    yield "refused_json_serialisation", json.dumps({"payload": body, "protected": head, "signature": mark})
    yield "refused_padding", f"{head}.{body}.{mark}=="
    yield "refused_two_parts", f"{head}.{body}"
    twice = json.dumps({"sub": ID, "aud": "server", "exp": 9_999_999_999})[:-1] + ',"sub":"spiffe://example.org/admin"}'
    yield "refused_duplicate_claim", sign_token({"alg": "ES256", "kid": "jwt-1"}, twice.encode(), OWN.jwt_key)


def _bundles() -> Iterator[tuple[str, bytes]]:
    honest = json.loads(OWN.bundle().to_jwks())
    x509_key, jwt_key = honest["keys"]
    yield "accepted_plain", _pretty(honest)
    yield "accepted_no_keys_left", _pretty({"keys": []})
    yield "accepted_unknown_members", _pretty(honest | {"later": {"x": 1}})
    yield "accepted_unknown_use", _pretty(honest | {"keys": [x509_key | {"use": "wit-svid"}, jwt_key]})
    yield "accepted_missing_use", _pretty(honest | {"keys": [{"kty": "EC"}, x509_key, jwt_key]})
    yield "accepted_unknown_kty", _pretty(honest | {"keys": [x509_key, jwt_key | {"kty": "PQC"}]})
    yield "accepted_empty_x5c", _pretty(honest | {"keys": [x509_key | {"x5c": []}, jwt_key]})
    yield "accepted_second_x5c_ignored", _pretty(honest | {"keys": [x509_key | {"x5c": [*x509_key["x5c"], "!"]}]})
    yield "accepted_jwt_key_without_kid", _pretty({"keys": [{k: v for k, v in jwt_key.items() if k != "kid"}]})
    bad: dict[str, Callable[[], object]] = {
        "refused_keys_missing": lambda: {"spiffe_sequence": 1},
        "refused_keys_no_array": lambda: {"keys": {}},
        "refused_sequence_is_a_text": lambda: honest | {"spiffe_sequence": "1"},
        "refused_sequence_negative": lambda: honest | {"spiffe_sequence": -1},
        "refused_refresh_hint_is_a_fraction": lambda: honest | {"spiffe_refresh_hint": 1.5},
        "refused_no_object": lambda: [honest],
    }
    for name, value in bad.items():
        yield name, _pretty(value())
    yield "refused_duplicate_key", b'{"keys":[],"keys":[]}\n'
    yield "refused_nan", b'{"keys":[],"x":NaN}\n'
    yield "refused_cut_off", _pretty(honest)[:-20]


def _ids() -> dict[str, str]:
    return {
        "accepted_plain": ID,
        "accepted_domain_only": "spiffe://example.org",
        "accepted_address_like": "spiffe://10.0.0.1/a",
        "accepted_three_dots": "spiffe://example.org/.../.x",
        "accepted_longest": "spiffe://example.org/".ljust(2048, "a"),
        "refused_too_long": "spiffe://example.org/".ljust(2049, "a"),
        "refused_line_break": ID + "\n",
        "refused_trailing_slash": "spiffe://example.org/",
        "refused_empty_segment": "spiffe://example.org//a",
        "refused_dot_segment": "spiffe://example.org/./a",
        "refused_dot_dot_segment": "spiffe://example.org/a/..",
        "refused_percent": "spiffe://example.org/%61",
        "refused_query": ID + "?a",
        "refused_fragment": ID + "#a",
        "refused_port": "spiffe://example.org:443/a",
        "refused_userinfo": "spiffe://a@example.org/a",
        "refused_upper_case_scheme": "SPIFFE://example.org/a",
        "refused_upper_case_domain": "spiffe://Example.org/a",
        "refused_no_domain": "spiffe:///a",
    }


def _pem(chain: tuple[x509.Certificate, ...]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)


def _pretty(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def main() -> None:
    """Write what has changed, and take away what no longer belongs."""
    made = build()
    for path in HERE.iterdir():
        if path.suffix in {".pem", ".txt", ".json"} and path.name not in made:
            path.unlink()
    for name, data in made.items():
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
