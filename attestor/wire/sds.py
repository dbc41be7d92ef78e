"""Envoy's secret discovery service, SDS v3: its methods by name, and its messages as values.

The messages are compiled under a package of our own, so the service's paths and the type URLs are written here by hand.
Values hold DER as the node agent keeps it; Envoy reads PEM, so it becomes PEM on the way out and nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message

from attestor._proto import secrets_pb2 as pb
from ca.errors import Malformed
from ca.spiffe import der
from ca.spiffe.id import TrustDomain

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
STREAM_SECRETS = f"/{SERVICE}/StreamSecrets"  # both ways; DeltaSecrets is not offered
FETCH_SECRETS = f"/{SERVICE}/FetchSecrets"  # unary

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
SECRET_TYPE = f"{_TLS}.Secret"
VALIDATOR = "envoy.tls.cert_validator.spiffe"
VALIDATOR_TYPE = f"{_TLS}.SPIFFECertValidatorConfig"
PLAIN_METADATA = "disable_spiffe_cert_validation"
"""What an Envoy says in its node's metadata when it has no SPIFFE validator; the name is SPIRE's."""

LONGEST_REQUEST = 256 * 1024
"""Bytes; an Envoy of a service mesh carries a lot of metadata about itself."""
MOST_NAMES = 128
LONGEST_NAME = 2048 + len("spiffe://")
_LONGEST_REASON = 500
_MOST_AUTHORITIES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRequest:
    """What an Envoy asks for or acknowledges.

    `refused` is its reason when it could not use the response called `nonce`. `plain` is what the node's metadata say
    of the SPIFFE validator, None when they say nothing; only the first request of a stream carries them.
    """

    names: tuple[str, ...]
    nonce: str = ""
    version: str = ""
    refused: str | None = None
    plain: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """One domain's authorities in concatenated DER, and its revocation lists where Envoy shall look at them."""

    authorities: bytes
    revocation_lists: tuple[bytes, ...] = ()

    def pem(self) -> bytes:
        """Everything of it in one PEM text: where there is one list, Envoy wants one of each authority (traps 15)."""
        return _trust_pem(self.authorities, self.revocation_lists)


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent: secrets, and the names by which Envoy speaks of this very response."""

    secrets: Sequence[pb.Secret] = field(repr=False)
    version: str
    nonce: str


def decode_request(message: pb.DiscoveryRequest) -> SecretRequest:
    """For a server. Raises Malformed: another type than secrets, or names no secret of ours can have."""
    if message.type_url not in {"", SECRET_TYPE}:
        raise Malformed(f"only secrets are discovered here: expected the type `{SECRET_TYPE}`")
    if len(message.resource_names) > MOST_NAMES:
        raise Malformed(f"a request must not name more than {MOST_NAMES} secrets")
    if not all(0 < len(name) <= LONGEST_NAME and name.isprintable() for name in message.resource_names):
        raise Malformed("the name of a secret is empty, too long or not printable")
    told = message.HasField("error_detail")
    return SecretRequest(
        names=tuple(dict.fromkeys(message.resource_names)),
        nonce=message.response_nonce,
        version=message.version_info,
        refused=_one_line(message.error_detail.message) if told else None,
        plain=_plain(message.node) if message.HasField("node") else None,
    )


def encode_request(request: SecretRequest) -> pb.DiscoveryRequest:
    """For a client."""
    message = pb.DiscoveryRequest(
        resource_names=request.names, type_url=SECRET_TYPE, response_nonce=request.nonce, version_info=request.version
    )
    if request.refused is not None:
        message.error_detail.code, message.error_detail.message = 13, request.refused
    if request.plain is not None:
        message.node.metadata.fields[PLAIN_METADATA].bool_value = request.plain
    return message


def encode_response(response: Response) -> pb.DiscoveryResponse:
    """For a server."""
    resources = [_packed(SECRET_TYPE, one) for one in response.secrets]
    return pb.DiscoveryResponse(
        resources=resources, type_url=SECRET_TYPE, version_info=response.version, nonce=response.nonce
    )


def decode_response(message: pb.DiscoveryResponse) -> Response:
    """For a client. Raises Malformed."""
    if message.type_url != SECRET_TYPE or any(one.type_url != SECRET_TYPE for one in message.resources):
        raise Malformed(f"a response holds something else than `{SECRET_TYPE}`")
    secrets = [pb.Secret.FromString(one.value) for one in message.resources]
    return Response(secrets, message.version_info, message.nonce)


def certificate(name: str, chain: bytes, key: bytes) -> pb.Secret:
    """A certificate with its key. `chain` is concatenated DER, `key` is PKCS#8."""
    pieces = der.split(chain, "the chain of an X.509-SVID", _MOST_AUTHORITIES)
    content = pb.TlsCertificate(
        certificate_chain=_inline(_pem("CERTIFICATE", pieces)), private_key=_inline(_pem("PRIVATE KEY", [key]))
    )
    return pb.Secret(name=name, tls_certificate=content)


def spiffe_validation(name: str, domains: Mapping[TrustDomain, Trust]) -> pb.Secret:
    """Whom to trust, each peer by the bundle of its own trust domain: needs Envoy's SPIFFE validator.

    A domain without authorities is left out: nothing of it is trusted then, where an empty bundle would be refused by
    Envoy and the one it had before kept.
    """
    listed = [
        pb.SPIFFECertValidatorConfig.TrustDomain(name=str(domain), trust_bundle=_inline(domains[domain].pem()))
        for domain in sorted(domains, key=str)
        if domains[domain].authorities
    ]
    packed = _packed(VALIDATOR_TYPE, pb.SPIFFECertValidatorConfig(trust_domains=listed))
    context = pb.CertificateValidationContext(
        custom_validator_config=pb.TypedExtensionConfig(name=VALIDATOR, typed_config=packed)
    )
    return pb.Secret(name=name, validation_context=context)


def plain_validation(name: str, trust: Trust) -> pb.Secret:
    """Whom to trust by one domain's authorities alone; there is no such thing for several (traps 1)."""
    return pb.Secret(name=name, validation_context=pb.CertificateValidationContext(trusted_ca=_inline(trust.pem())))


@lru_cache(maxsize=32)
def _trust_pem(authorities: bytes, revocation_lists: tuple[bytes, ...]) -> bytes:
    """Remembered: every stream is sent the same, and lists are long."""
    pieces = der.split(authorities, "a bundle", _MOST_AUTHORITIES)
    return _pem("CERTIFICATE", pieces) + _pem("X509 CRL", revocation_lists)


def _packed(type_url: str, message: Message) -> Packed:
    return Packed(type_url=type_url, value=message.SerializeToString(deterministic=True))


def _inline(content: bytes) -> pb.DataSource:
    return pb.DataSource(inline_bytes=content)


def _pem(label: str, pieces: Sequence[bytes]) -> bytes:
    lines: list[str] = []
    for piece in pieces:
        text = base64.b64encode(piece).decode()
        body = (text[start : start + 64] for start in range(0, len(text), 64))
        lines += [f"-----BEGIN {label}-----", *body, f"-----END {label}-----"]
    return "".join(f"{line}\n" for line in lines).encode()


def _plain(node: pb.Node) -> bool | None:
    """SPIRE's users write it as a boolean or as a text."""
    if PLAIN_METADATA not in node.metadata.fields:
        return None
    said = node.metadata.fields[PLAIN_METADATA]
    return said.bool_value or said.string_value.lower() in {"true", "1"}


def _one_line(text: str) -> str:
    """What a stranger wrote must not break a line of the log."""
    return text[:_LONGEST_REASON].encode("unicode_escape").decode("ascii")
