"""WIT-SVIDs as the attestor server signs them for its nodes: what a leaf needs, a WIT needs too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.errors import InstanceElsewhere, InstanceEnded, NotEntitled, Unobserved
from attestor.wire.attestation import Attestation
from attestor.wire.node import LiveSet, WitItem
from ca.errors import Malformed
from ca.spiffe import jose, witsvid
from ca.spiffe.bundle import BundleSet
from fakes.attestor_parts import DOMAIN, GRACE, KEY, SPKI, Parts, attestation, parts

RULES = """
rules:
  - name: agent
    nodes: [node:name:web-1]
    when: [unix:uid:7]
    spiffe_id: /agent
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Parts]:
    """With one rule for one node."""
    async with parts(tmp_path, RULES) as one:
        yield one


async def wit(server: Parts, node: str, of: Attestation, path: str = "/agent", key: bytes = SPKI) -> str:
    """Ask as the node of that name."""
    admitted = await server.node(server.peer_id(node))
    item = WitItem(attestation=of, id=DOMAIN.member(path), public_key=key)
    return await server.workloads.sign_wit(admitted, item, server.clock.now())


async def live(server: Parts, node: str, counter: int, *instances: str) -> None:
    """The node reports its live set."""
    admitted = await server.node(server.peer_id(node))
    await server.instances.report(
        admitted, LiveSet(counter=counter, instances=frozenset(instances)), server.clock.now()
    )


async def test_it_names_the_key_the_identity_and_the_instance(server: Parts) -> None:
    """Signed by the authority's WIT key, for as long as the setting says; counted."""
    await server.join("web-1")
    of = attestation("unix:uid:7")
    await live(server, "web-1", 1, of.instance)
    token, now = await wit(server, "web-1", of), server.clock.now()
    found = witsvid.check(token, BundleSet.of(server.authority.bundle(now)), now)
    assert (found.subject, found.key) == ("spiffe://example.org/agent", KEY.public_key())
    assert jose.instance_of(found.claims) == of.instance
    assert found.expires_at - now == server.authority.settings.wit_ttl


@pytest.mark.parametrize("path", ["/other", "/sojourn/server", "/task/t1"])
async def test_another_identity_is_not_signed(server: Parts, path: str) -> None:
    """Whatever a node agent asks for (traps 2)."""
    await server.join("web-1")
    of = attestation("unix:uid:7")
    await live(server, "web-1", 1, of.instance)
    with pytest.raises(NotEntitled):
        await wit(server, "web-1", of, path)


async def test_nor_for_another_node_an_ended_or_an_unseen_instance(server: Parts) -> None:
    """The same as for leaves: the rule's node, a live instance of this node, a node that reports."""
    await server.join("web-1")
    await server.join("web-2")
    of = attestation("unix:uid:7")
    await live(server, "web-1", 1, of.instance)
    await wit(server, "web-1", of)
    await live(server, "web-2", 1, of.instance)
    with pytest.raises((NotEntitled, InstanceElsewhere)):
        await wit(server, "web-2", of)
    await live(server, "web-1", 2)
    with pytest.raises(InstanceEnded):
        await wit(server, "web-1", of)
    await server.clock.advance(GRACE.total_seconds() + 1)
    with pytest.raises(Unobserved):
        await wit(server, "web-1", attestation("unix:uid:7"))


async def test_a_key_that_proves_nothing_is_refused(server: Parts) -> None:
    """Of another kind, of another curve, or none; the instance stays as it is."""
    await server.join("web-1")
    of = attestation("unix:uid:7")
    await live(server, "web-1", 1, of.instance)
    odd = ec.generate_private_key(ec.SECP256K1()).public_key()
    spki = odd.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for key in (b"junk", spki, SPKI + b"\x00"):
        with pytest.raises(Malformed):
            await wit(server, "web-1", of, key=key)
    assert await wit(server, "web-1", of)
