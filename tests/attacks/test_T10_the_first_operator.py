"""Traps 10: whose word is an operator's. The socket is the root of it; nobody gives what they have not."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.model.caller import Caller, Operator, Verb
from broker.service import operators
from broker.service.operators import KnownOperators
from broker.service.proofs import Asked, Shown
from ca.errors import Denied, Malformed
from ca.runtime import web
from fakes.front import OPERATOR, Front, front

KNOCK = r"""
import os, socket, sys
os.setgroups([]); os.setgid(4321); os.setuid(4321)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
print(connection.recv(65536).split()[1].decode())
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        yield found


def certificate(*uris: str) -> str:
    """One that anybody may make."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


async def add(house: Front, by: Caller, pem: str, *verbs: Verb) -> Operator:
    """Bind a certificate to verbs."""
    asked = Asked(caller=by, shown=Shown(header=None, method="POST", path="/v1/operators"), now=house.clock.now())
    return await operators.add(house.gate, asked, "eve", pem, verbs, KnownOperators())


async def test_nobody_gives_a_verb_they_have_not(house: Front) -> None:
    """Else the right to add operators would be every right."""
    few = Operator(name="bob", verbs=frozenset({Verb.MANAGE_OPERATORS, Verb.READ_TASKS}))
    with pytest.raises(Denied, match="which it has not"):
        await add(house, few, certificate(), Verb.READ_TASKS, Verb.REVOKE_LEASES)
    assert (await add(house, few, certificate(), Verb.READ_TASKS)).verbs == {Verb.READ_TASKS}


async def test_an_agent_and_an_operator_without_the_verb_add_nobody(house: Front) -> None:
    """Whatever they ask for."""
    for caller in (house.agent(), Operator(name="bob", verbs=frozenset({Verb.READ_TASKS}))):
        with pytest.raises(Denied):
            await add(house, caller, certificate(), Verb.READ_TASKS)


async def test_an_identity_of_a_workload_is_no_operator(house: Front) -> None:
    """A process that shares a user with another could take it."""
    with pytest.raises(Malformed, match="SVID"):
        await add(house, OPERATOR, certificate("spiffe://example.org/agents/billing"), Verb.READ_TASKS)
    with pytest.raises(Malformed, match="SVID"):
        await add(house, OPERATOR, certificate("https://example.org", "spiffe://example.org/a"), Verb.READ_TASKS)


@pytest.mark.parametrize(("allowed", "status"), [({os.geteuid()}, "403"), ({os.geteuid(), 4321}, "200")])
async def test_the_socket_asks_the_kernel_whose_process_knocks(tmp_path: Path, allowed: set[int], status: str) -> None:
    """Also when its mode lets everybody connect."""

    async def told(_: web.Call) -> dict[str, str]:
        return {"said": "x"}

    tmp_path.chmod(0o755)
    app = web.application([web.Route("GET", "/x", told, summary="x")])
    async with web.listen_unix(app, tmp_path / "s", mode=0o666, allow_uids=allowed):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KNOCK, "s", stdout=asyncio.subprocess.PIPE, cwd=tmp_path
        )
        assert (await process.communicate())[0].decode().strip() == status
