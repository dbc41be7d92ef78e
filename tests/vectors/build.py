"""Makes the vectors beside it: `python tests/vectors/build.py`.

A vector is one file whose name says what it is, what must become of it, and why: `x509_refused_two_uri_sans.pem`,
`jwt_refused_alg_none.txt`, `bundle_accepted_unknown_use.json`. They are judged at `NOON` with the bundles in
`bundles.json`, tokens for the audience `server`, proofs for `https://server.example.org/orders`. Keys come from a seed
and signatures are deterministic, so building again changes no byte; other implementations can be fed the same files.

    x509    what a peer shows, PEM               chain   the same as the Workload API carries it, DER after DER
    jwt     a JWT-SVID                           wit     a WIT-SVID, believed to be signed, proven by nobody
    wpt     a WIT-SVID and its proof, two lines  id      a SPIFFE ID
    bundle  a SPIFFE bundle of `example.org`     map     a bundle map
    anchors X.509 authorities, DER after DER     crl     a revocation list, DER; it `revokes` or `spares` the leaf of
                                                         `x509_accepted_plain.pem`, or is `refused`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402

from ca.spiffe.bundle import BundleSet  # noqa: E402
from fakes.pki import NOON, Oddities, TestAuthority, make_key  # noqa: E402
from vectors.authorities import FOREIGN, FOREIGN_WITS, ID, IMPOSTOR, OWN, WITS  # noqa: E402
from vectors.bundles import bundles, maps, pretty  # noqa: E402
from vectors.ders import anchors, chains, lists, swollen  # noqa: E402
from vectors.tokens import jwts, proofs, wits  # noqa: E402

PLAIN = OWN.certificate()


def build() -> dict[str, bytes]:
    """Every vector by its file name."""
    made = {"bundles.json": pretty(json.loads(BundleSet.of(WITS.bundle(), FOREIGN_WITS.bundle()).to_json()))}
    made |= {f"x509_{name}.pem": _pem(chain) for name, chain in _chains()}
    made |= {f"x509_{name}.pem": data for name, data in swollen(PLAIN)}
    made |= {f"chain_{name}.der": data for name, data in chains(PLAIN)}
    made |= {f"anchors_{name}.der": data for name, data in anchors()}
    made |= {f"crl_{name}.der": data for name, data in lists(PLAIN)}
    made |= {f"jwt_{name}.txt": token.encode() + b"\n" for name, token in jwts()}
    made |= {f"wit_{name}.txt": token.encode() + b"\n" for name, token in wits()}
    made |= {f"wpt_{name}.txt": b"\n".join([wit.encode(), proof.encode(), b""]) for name, wit, proof in proofs()}
    made |= {f"bundle_{name}.json": data for name, data in bundles()}
    made |= {f"map_{name}.json": data for name, data in maps()}
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
        yield name, OWN.chain(PLAIN if odd == Oddities() else OWN.certificate(odd=odd))
    yield from _paths()


def _paths() -> Iterator[tuple[str, tuple[x509.Certificate, ...]]]:
    yield "accepted_instance", OWN.chain(OWN.certificate(instance="0123456789abcdef" * 2))
    yield "accepted_root_shown", (*OWN.chain(PLAIN), OWN.root)
    yield "accepted_federated", FOREIGN.chain(FOREIGN.certificate())
    yield "refused_id_of_ours_by_a_federated_authority", FOREIGN.chain(FOREIGN.certificate(odd=Oddities(uris=[ID])))
    yield "refused_same_names_other_keys", IMPOSTOR.chain(IMPOSTOR.certificate())
    yield "refused_intermediate_missing", (PLAIN,)
    yield "refused_issuer_as_leaf", (OWN.issuer,)
    yield "refused_expired", OWN.chain(OWN.certificate(now=NOON - timedelta(hours=2)))
    yield "refused_not_yet_valid", OWN.chain(OWN.certificate(now=NOON + timedelta(hours=2)))
    child = TestAuthority("example.org", seed="child", intermediate=False)
    child.issuer_key = make_key("a workload that signs")
    child.issuer = OWN.certificate("/evil", odd=Oddities(key=child.issuer_key))
    yield "refused_signed_by_a_workload", (child.certificate(), *OWN.chain(child.issuer))


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


def main() -> None:
    """Write what has changed, and take away what no longer belongs."""
    made = build()
    for path in HERE.iterdir():
        if path.suffix in {".der", ".json", ".pem", ".txt"} and path.name not in made:
            path.unlink()
    for name, data in made.items():
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
