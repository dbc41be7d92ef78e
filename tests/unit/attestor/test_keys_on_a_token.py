"""A server whose keys are on a PKCS#11 token: a workload is served through it, and it comes back with the same root."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestor.client.source import X509Source
from attestor.client.workload_api import WorkloadApiClient
from attestor.server.settings import Keys
from ca.spiffe import jwtsvid, x509svid
from fakes.identity_side import CLOCK, address, agent, both, server
from servers import softhsm


@pytest.fixture
def keys() -> Iterator[Keys]:
    """An empty token."""
    place = softhsm.place()
    softhsm.sweep()
    yield Keys(store="pkcs11", module=place.module, token=place.token, pin=place.pin)
    softhsm.sweep()


async def test_leaves_and_tokens_are_signed_on_the_token(tmp_path: Path, keys: Keys) -> None:
    """From the Workload API down to SoftHSM and back; after a restart the node agent needs no new join token."""
    async with asyncio.timeout(60):
        async with both(tmp_path, keys=keys) as (first, node), X509Source.open(address(node)) as source:
            x509svid.verify(_chain(source), source.bundles, CLOCK.now())
            async with WorkloadApiClient(address(node)) as api:
                (token,) = await api.fetch_jwt(["orders"])
                jwtsvid.verify(token.token, "orders", await api.fetch_jwt_bundles(), CLOCK.now())
            root = first.root_key_hash
        async with server(tmp_path, keys=keys) as second, agent(tmp_path, second.address[1]):
            assert second.root_key_hash == root
            assert not any("memory" in words for words in second.warnings)


def _chain(source: X509Source) -> list[bytes]:
    return [each.public_bytes(Encoding.DER) for each in source.svid.chain]
