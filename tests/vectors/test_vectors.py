"""Every vector becomes what its name says."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from ca.errors import Malformed
from ca.spiffe import der, jwtsvid, proof, witsvid, x509svid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Revoked, Untrusted
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.replay import ReplayCache
from ca.spiffe.revocation_list import RevocationLists
from fakes.pki import NOON
from fakes.wits import HERE as AUDIENCE
from vectors import build

HERE = Path(__file__).resolve().parent
BUNDLES = BundleSet.from_json((HERE / "bundles.json").read_bytes())
VECTORS = sorted(
    path for path in HERE.iterdir() if path.is_file() and path.name.partition("_")[2] and path.suffix != ".py"
)


DOMAIN = TrustDomain.parse("example.org")
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def chain_of(pem: bytes) -> list[bytes]:
    """The bytes between the lines, whatever they are."""
    return [base64.b64decode(body) for body in PEM.findall(pem)]


def judge(path: Path) -> object:  # one line for each kind
    """Read one vector as what it is."""
    data = path.read_bytes()
    match path.name.partition("_")[0]:
        case "x509":
            return x509svid.verify(chain_of(data), BUNDLES, NOON)
        case "chain":
            return x509svid.verify(der.split(data, "the chain", x509svid.LONGEST_CHAIN), BUNDLES, NOON)
        case "jwt":
            return jwtsvid.verify(data.decode().removesuffix("\n"), "server", BUNDLES, NOON)
        case "wit":
            return witsvid.check(data.decode().removesuffix("\n"), BUNDLES, NOON)
        case "wpt":
            wit, token, _ = data.decode().split("\n")
            return proof.verify(wit, token, audiences=[AUDIENCE], bundles=BUNDLES, now=NOON, seen=ReplayCache())
        case "bundle":
            return Bundle.from_jwks(DOMAIN, data)
        case "anchors":
            return Bundle.from_der(DOMAIN, data)
        case "map":
            return BundleSet.from_json(data)
        case "crl":
            plain = chain_of((HERE / "x509_accepted_plain.pem").read_bytes())
            return x509svid.verify(plain, BUNDLES, NOON, RevocationLists.of([data]))
        case "id":
            return SpiffeId.parse(data.decode())
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("path", VECTORS, ids=[path.name for path in VECTORS])
def test_a_vector_becomes_what_its_name_says(path: Path) -> None:
    """Accepted, or refused with a reason; a list spares the leaf or takes it back."""
    verdict = path.name.split("_")[1]
    assert verdict in {"accepted", "refused", "spares", "revokes"}
    assert (verdict in {"spares", "revokes"}) <= path.name.startswith("crl_")
    if verdict in {"accepted", "spares"}:
        judge(path)
        return
    with pytest.raises(Revoked if verdict == "revokes" else (Malformed, Untrusted)) as caught:
        judge(path)
    assert isinstance(caught.value, Revoked) == (verdict == "revokes")


@pytest.mark.parametrize("path", [path for path in VECTORS if path.name.startswith("bundle_accepted_junk_")])
def test_junk_beside_honest_keys_adds_nothing(path: Path) -> None:
    """And takes nothing away."""
    assert judge(path) == Bundle.from_jwks(DOMAIN, (HERE / "bundle_accepted_plain.json").read_bytes())


def test_the_vectors_are_what_build_makes() -> None:
    """Building again changes no byte, so nobody edits one by hand."""
    there = {path.name: path.read_bytes() for path in [*VECTORS, HERE / "bundles.json"]}
    assert there == build.build()
    assert len(VECTORS) > 300
