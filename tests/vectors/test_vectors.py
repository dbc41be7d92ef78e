"""Every vector becomes what its name says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca.errors import Malformed
from ca.spiffe import jwtsvid, x509svid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId, TrustDomain
from fakes.pki import NOON

HERE = Path(__file__).resolve().parent
BUNDLES = BundleSet.from_json((HERE / "bundles.json").read_bytes())
VECTORS = sorted(
    path for path in HERE.iterdir() if path.is_file() and path.name.partition("_")[2] and path.suffix != ".py"
)


def judge(path: Path) -> object:
    """Read one vector as what it is."""
    data = path.read_bytes()
    match path.name.partition("_")[0]:
        case "x509":
            chain = [each.public_bytes(serialization.Encoding.DER) for each in x509.load_pem_x509_certificates(data)]
            return x509svid.verify(chain, BUNDLES, NOON)
        case "jwt":
            return jwtsvid.verify(data.decode().removesuffix("\n"), "server", BUNDLES, NOON)
        case "bundle":
            return Bundle.from_jwks(TrustDomain.parse("example.org"), data)
        case "id":
            return SpiffeId.parse(data.decode())
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("path", VECTORS, ids=[path.name for path in VECTORS])
def test_a_vector_becomes_what_its_name_says(path: Path) -> None:
    """Accepted, or refused with a reason."""
    verdict = path.name.split("_")[1]
    assert verdict in {"accepted", "refused"}
    if verdict == "accepted":
        judge(path)
        return
    with pytest.raises((Malformed, Untrusted)):
        judge(path)


def test_the_vectors_are_what_build_makes() -> None:
    """Building again changes no byte, so nobody edits one by hand."""
    made = builder().build()
    there = {path.name: path.read_bytes() for path in [*VECTORS, HERE / "bundles.json"]}
    assert there == made
    assert len(VECTORS) > 90


def builder() -> Any:
    """The module beside this one."""
    spec = importlib.util.spec_from_file_location("vectors_build", HERE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
