"""A node's certificate request that asks for another's name: what it says is not looked at, the proof decides.

The request proves that its sender holds a key, and nothing else. A rooted node may write into it whatever it likes.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from attestor.conversation import pipe
from attestor.methods.node.join_token import Prover
from attestor.wire.node import Admission
from fakes.attestor_parts import DOMAIN, KEY, Parts, parts

VICTIM = "ab" * 16
WANTED = ["/sojourn/broker", "/sojourn/server", "/sojourn/node/other", "/task/1", "/agents/orders"]


def greedy(path: str) -> bytes:
    """A request in the name, with the instance and the powers of somebody else."""
    subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, VICTIM)])
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(str(DOMAIN.member(path))), x509.DNSName("attestor.example.org")]
            ),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


async def joined(server: Parts, request: bytes) -> Admission:
    """Join as the node `n` with this request."""
    token = (await server.admission.issue_token("n", timedelta(minutes=10), server.clock.now())).token
    ours, theirs = pipe()
    await Prover(token).prove(ours)
    return await server.admission.attest("join_token", request, theirs, server.clock.now())


def read(chain: bytes) -> tuple[list[str], list[str], bool]:
    """Names, numbers in the subject, and whether it is an authority's."""
    leaf = x509.load_der_x509_certificate(chain[: 4 + int.from_bytes(chain[2:4], "big")])
    names = [str(each.value) for each in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
    numbers = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
    return names, numbers, leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("path", WANTED)
async def test_at_admission(tmp_path: Path, path: str) -> None:
    """It gets the name of its proof, its own admission, and no power to sign."""
    async with parts(tmp_path) as server:
        admitted = await joined(server, greedy(path))
        node = await server.node(admitted.id)
        assert read(admitted.chain) == ([str(DOMAIN.member("/sojourn/node/n"))], [node.admission], False)
        assert node.admission != VICTIM


@pytest.mark.parametrize("path", WANTED)
async def test_at_renewal(tmp_path: Path, path: str) -> None:
    """A node that is in gets no further by asking again."""
    async with parts(tmp_path) as server:
        node = await server.join("n")
        renewed = await server.admission.renew(node, greedy(path), server.clock.now())
        assert read(renewed.chain) == ([str(DOMAIN.member("/sojourn/node/n"))], [node.admission], False)
