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
from ca.runtime.document import BadSettings
from ca.runtime.settings import loads
from ca.spiffe import jwtsvid, x509svid
from fakes.identity_side import CLOCK, address, agent, both, server
from servers import softhsm


@pytest.fixture(params=["pkcs11", "disk"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keys]:
    """On the token, or on the disk and sealed by a secret there."""
    place = softhsm.place()
    softhsm.sweep()
    softhsm.secret("seal", SENSITIVE=True, EXTRACTABLE=False)
    where = {"module": place.module, "token": place.token, "pin": place.pin}
    if request.param == "disk":
        where |= {"folder": tmp_path / "keys", "seal_label": "seal"}
    yield Keys.model_validate({"store": request.param, **where})
    softhsm.sweep()


@pytest.mark.parametrize(
    "text",
    [
        "{store: pkcs11, module: /m.so, token: t}",
        '{store: pkcs11, module: /m.so, token: t, pin: "1234"}',
        '{store: pkcs11, module: /m.so, token: t, pin: "file:/p", seal: "file:/s"}',
        "{store: disk, folder: /k}",
        '{store: disk, folder: /k, seal: "file:/s", seal_label: s}',
        "{store: disk, folder: /k, seal_label: s, module: /m.so, token: t}",
    ],
)
def test_a_store_that_is_not_said_whole_is_refused(text: str) -> None:
    """And a PIN never stands in the settings themselves, nor in what is said of them."""
    with pytest.raises(BadSettings) as caught:
        loads(text, "keys.yaml", Keys)
    assert "1234" not in str(caught.value)


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
