"""A server whose root is kept elsewhere: nodes pin that root, workloads believe it, operators see whose it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestor.client.admin import AdminClient
from attestor.client.source import X509Source
from attestor.server.settings import UpstreamRoot
from ca.errors import Conflict
from ca.runtime.document import BadSettings
from ca.runtime.settings import loads
from ca.spiffe import der, x509svid
from fakes.elsewhere import Corporate, put
from fakes.identity_side import CLOCK, address, both


async def test_a_workload_stands_on_a_corporate_root(tmp_path: Path) -> None:
    """From the join token, which names that root, to a leaf that verifies under it."""
    root = Corporate(begin=CLOCK.now())
    put(tmp_path, root)
    upstream = UpstreamRoot(certificate=tmp_path / "root.pem", key=tmp_path / "root.key")
    async with (
        asyncio.timeout(60),
        both(tmp_path, upstream=upstream) as (server, agent),
        X509Source.open(address(agent)) as source,
        AdminClient(server.admin_socket) as admin,
    ):
        chain = [each.public_bytes(Encoding.DER) for each in source.svid.chain]
        x509svid.verify(chain, source.bundles, CLOCK.now())
        source.svid.chain[-1].verify_directly_issued_by(root.certificate)
        (anchor,) = (await admin.get("/v1/authorities"))["anchors"]
        assert (anchor["key_id"], anchor["servers"]) == (der.key_id_of(root.certificate).hex(), ["main"])
        with pytest.raises(Conflict, match="whoever holds it must revoke it"):
            await admin.post(f"/v1/authorities/{anchor['key_id']}/taint", {})


@pytest.mark.parametrize(
    "text",
    [
        "{certificate: /r.pem}",
        "{certificate: /r.pem, key: /r.key, label: root}",
        "{certificate: /r.pem, module: /m.so, token: t, label: root}",
        '{certificate: /r.pem, module: /m.so, token: t, label: root, pin: "1234"}',
        '{certificate: /r.pem, module: /m.so, token: t, label: root, pin: "file:/p", passphrase: "file:/p"}',
    ],
)
def test_a_root_that_is_not_said_whole_is_refused(text: str) -> None:
    """In a file or on a token, one of them and all of it; a PIN never stands in the settings themselves."""
    with pytest.raises(BadSettings) as caught:
        loads(text, "upstream.yaml", UpstreamRoot)
    assert "1234" not in str(caught.value)
