"""Envoy's messages: there and back, PEM that others read, and whatever else arrives."""

from __future__ import annotations

import pytest
from cryptography import x509
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from attestor._proto import secrets_pb2 as pb
from attestor.wire import sds as wire
from attestor.wire.sds import Response, SecretRequest, Trust
from ca.errors import Malformed
from ca.spiffe.id import TrustDomain
from fakes.pki import NOON, TestAuthority
from fakes.revocations import make_list

AUTHORITY = TestAuthority("example.org", seed="sds")
OWN = TrustDomain.parse("example.org")


@pytest.mark.parametrize(
    "request_",
    [
        SecretRequest(names=()),
        SecretRequest(names=("default",), nonce="a", version="1"),
        SecretRequest(names=("default", "ROOTCA"), refused="no good", plain=True),
        SecretRequest(names=("ALL",), plain=False),
    ],
)
def test_a_request_there_and_back(request_: SecretRequest) -> None:
    """Acknowledgements and refusals too."""
    assert wire.decode_request(wire.encode_request(request_)) == request_


def test_a_response_there_and_back() -> None:
    """Secrets by name, packed as Envoy's type."""
    sent = Response([wire.plain_validation("ROOTCA", Trust(authorities=AUTHORITY.bundle().x509_der()))], "7", "n")
    assert wire.decode_response(wire.encode_response(sent)) == sent


def test_a_key_is_in_no_repr() -> None:
    """What is logged by mistake holds none."""
    svid = AUTHORITY.leaf()
    response = Response([wire.certificate("default", svid.chain_der(), svid.key_der())], "1", "n")
    assert "PRIVATE" not in repr(response)


def test_lists_stand_behind_their_authorities() -> None:
    """In one PEM text that holds both."""
    lists = (make_list(AUTHORITY), make_list(AUTHORITY, signer=(AUTHORITY.root, AUTHORITY.root_key)))
    text = Trust(authorities=AUTHORITY.bundle().x509_der(), revocation_lists=lists).pem()
    assert x509.load_pem_x509_certificates(text) == [AUTHORITY.root]
    second = text[text.rindex(b"-----BEGIN X509 CRL") :]
    assert x509.load_pem_x509_crl(second).last_update_utc == NOON


def test_a_domain_without_authorities_is_left_out() -> None:
    """Envoy would refuse the whole and keep trusting what it had."""
    empty = TrustDomain.parse("empty.test")
    trusts = {OWN: Trust(authorities=AUTHORITY.bundle().x509_der()), empty: Trust(authorities=b"")}
    secret = wire.spiffe_validation("ALL", trusts)
    packed = secret.validation_context.custom_validator_config.typed_config
    assert [one.name for one in pb.SPIFFECertValidatorConfig.FromString(packed.value).trust_domains] == ["example.org"]


@pytest.mark.parametrize(
    ("said", "plain"), [(True, True), (False, False), ("true", True), ("1", True), ("no", False), (None, None)]
)
def test_what_a_node_says_of_its_validator(said: bool | str | None, plain: bool | None) -> None:  # noqa: FBT001
    """As a boolean or a text, as SPIRE's users write it."""
    message = pb.DiscoveryRequest(node=pb.Node(id="a"))
    if said is not None:
        message.node.metadata.update({wire.PLAIN_METADATA: said})
    assert wire.decode_request(message).plain is plain


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    """Nothing else is raised; names stay printable, a reason stays one line."""
    try:
        found = wire.decode_request(pb.DiscoveryRequest.FromString(data))
    except (DecodeError, Malformed):
        return
    assert all(name.isprintable() for name in found.names)
    assert found.refused is None or found.refused.isprintable()
