"""Messages of the Workload API, there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message

from attestor._proto import workload_pb2 as pb
from attestor.wire import workload
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain

DOMAIN = TrustDomain.parse("example.org")
ID = SpiffeId.parse("spiffe://example.org/agent")
ENTRY = workload.X509Entry(id=ID, chain=b"c", key=b"private", bundle=b"b", hint="main")


def test_the_paths_are_the_standards() -> None:
    """The service has no package, whatever ours is called."""
    assert workload.FETCH_X509_SVID == "/SpiffeWorkloadAPI/FetchX509SVID"
    assert pb.DESCRIPTOR.package == "sojourn.workload.v1"


def test_values_survive_the_wire() -> None:
    """Decoding gives what was encoded; bundles are keyed by the trust domain's SPIFFE ID."""
    update = workload.X509Update(svids=(ENTRY,), crl=(b"r",), federated={DOMAIN: b"f"})
    message = workload.encode_x509(update)
    assert list(message.federated_bundles) == ["spiffe://example.org"]
    assert workload.decode_x509(message) == update
    assert workload.decode_x509_bundles(workload.encode_x509_bundles({DOMAIN: b"b"})) == {DOMAIN: b"b"}
    assert workload.decode_jwt_bundles(workload.encode_jwt_bundles({DOMAIN: b"{}"})) == {DOMAIN: b"{}"}
    tokens = (workload.JwtEntry(id=ID, token="t", hint="h"),)
    assert workload.decode_jwt(workload.encode_jwt(tokens)) == tokens
    request = workload.JwtRequest(audience=("a",), id=ID)
    assert workload.decode_jwt_request(workload.encode_jwt_request(request)) == request
    assert workload.decode_validate(workload.encode_validate("t", "a")) == ("t", "a")
    validated = workload.Validated(id=ID, claims={"sub": str(ID), "aud": ["a"], "exp": 5.0})
    assert workload.decode_validated(workload.encode_validated(validated)) == validated


@pytest.mark.clause("WL-8", "WL-10")
@pytest.mark.parametrize("field", ["spiffe_id", "x509_svid", "x509_svid_key", "bundle"])
def test_a_message_with_an_empty_mandatory_field_is_discarded(field: str) -> None:
    """WL-8."""
    message = workload.encode_x509(workload.X509Update(svids=(ENTRY,)))
    message.svids[0].ClearField(field)
    with pytest.raises(Malformed, match=field):
        workload.decode_x509(message)


def test_an_answer_without_anything_is_discarded() -> None:
    """WL-10, WL-13, WL-14."""
    empty: list[tuple[Callable[[Any], object], Message]] = [
        (workload.decode_x509, pb.X509SVIDResponse()),
        (workload.decode_x509_bundles, pb.X509BundlesResponse()),
        (workload.decode_jwt, pb.JWTSVIDResponse()),
        (workload.decode_jwt_bundles, pb.JWTBundlesResponse()),
        (workload.decode_jwt_request, pb.JWTSVIDRequest()),
        (workload.decode_validate, pb.ValidateJWTSVIDRequest()),
    ]
    for decode, message in empty:
        with pytest.raises(Malformed):
            decode(message)


@pytest.mark.clause("WL-10")
def test_of_two_entries_with_one_hint_the_first_is_kept() -> None:
    """WL-10; entries without a hint are all kept."""
    second, bare = replace(ENTRY, chain=b"d"), replace(ENTRY, hint="", chain=b"e")
    found = workload.decode_x509(workload.encode_x509(workload.X509Update(svids=(ENTRY, second, bare, bare))))
    assert [one.chain for one in found.svids] == [b"c", b"e", b"e"]


def test_keys_and_tokens_are_in_no_repr() -> None:
    """What is handed over is not printed by accident."""
    assert "private" not in repr(ENTRY)
    assert "secret" not in repr(workload.JwtEntry(id=ID, token="secret"))
