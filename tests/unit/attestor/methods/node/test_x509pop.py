"""Machines with a certificate, against a server's parts; the CA is a real one."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from attestor.conversation import Conversation, pipe
from attestor.errors import BadConversation, Banned, NotProven
from attestor.methods.node.chains import MOST_CERTIFICATES
from attestor.methods.node.protocol import Occasion
from attestor.methods.node.x509pop import (
    METHOD,
    Prover,
    Verifier,
    VerifierSettings,
    departed,
)
from attestor.selector import texts
from attestor.server.store.nodes import NodeState
from attestor.wire.node import Admission
from ca.errors import Malformed
from fakes.attestor_parts import KEY, Parts, csr, parts
from fakes.clock import ManualClock
from fakes.company import DAY, Company, Key, Machine, key_of, shown


@asynccontextmanager
async def admitting(folder: Path, **settings: Any) -> AsyncIterator[tuple[Company, Parts]]:
    """A server that takes the machines of a company as nodes."""
    clock = ManualClock()
    company = Company(folder, clock.now())
    known = VerifierSettings(roots=(company.pem,), **settings)
    async with parts(folder, verifiers={METHOD: partial(Verifier, known)}, clock=clock) as server:
        yield company, server


async def prove(server: Parts, machine: Machine, *, signs_for: Key = KEY, asks_for: Key = KEY) -> Admission:
    """What a machine is given that signs for one key and asks for a certificate of another."""
    ours, theirs = pipe()
    async with asyncio.TaskGroup() as group:
        proving = group.create_task(Prover(machine.settings(), _spki(signs_for)).prove(ours))
        attesting = server.admission.attest(METHOD, csr(asks_for), theirs, server.clock.now())
        return await _alone(attesting, proving)


async def _alone(attesting: Any, proving: asyncio.Task[None]) -> Admission:
    try:
        found: Admission = await attesting
    except BaseException:
        proving.cancel()
        raise
    return found


def _spki(key: Key) -> bytes:
    found: bytes = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


async def refused(attempt: Any) -> Exception:
    """The one reason of a group of them."""
    with pytest.raises(BaseExceptionGroup) as caught:
        await attempt
    (reason,) = caught.value.exceptions
    assert isinstance(reason, Exception)
    return reason


async def test_a_machine_is_a_node(tmp_path: Path) -> None:
    """The same one each time, and again with a renewed certificate of the same key."""
    async with admitting(tmp_path) as (company, server):
        key = ec.generate_private_key(ec.SECP256R1())
        first = await prove(server, company.machine("web-1", key))
        said = texts(first.selectors)
        assert {"x509pop:subject:cn:web-1", "node:method:x509pop"} <= set(said)
        kinds = {one.split(":")[1] for one in said if one.startswith("x509pop")}
        assert kinds == {"fingerprint", "key", "serialnumber", "ca", "not_after", "subject"}
        assert (await prove(server, company.machine("web-1", key))).id == first.id
        assert (await prove(server, company.machine("web-1"))).id != first.id


async def test_a_name_may_be_the_common_name(tmp_path: Path) -> None:
    """In lower case; one that is no node's name is refused."""
    async with admitting(tmp_path, name="{cn}") as (company, server):
        assert (await prove(server, company.machine("Web-1.test"))).id.path == "/sojourn/node/web-1.test"
        for odd in ("../server", "a/b", "-x", "two words"):
            machine = company.machine("odd", ec.generate_private_key(ec.SECP256R1()))
            renamed = company.certificate(odd, key_of(machine), "middle", company.middle_key)
            shown = company.write("odd", key_of(machine), renamed, company.middle)
            assert isinstance(await refused(prove(server, shown)), NotProven)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
    ],
)
async def test_every_kind_of_key(tmp_path: Path, make: Callable[[], Key]) -> None:
    """RSA by PSS, and the larger curves."""
    async with admitting(tmp_path) as (company, server):
        assert await prove(server, company.machine("m", make()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 1024),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
async def test_a_key_of_another_kind_is_refused(tmp_path: Path, make: Callable[[], Key]) -> None:
    """By the server, whatever the node agent thinks of it: the chain alone is enough."""
    async with admitting(tmp_path) as (company, server):
        machine = company.machine("m", make())
        with pytest.raises(NotProven, match="neither RSA of 2048"):
            await says(server, company, chain=shown(machine))


async def test_another_companys_machine_is_refused(tmp_path: Path) -> None:
    """Also when its CA has the same names."""
    async with admitting(tmp_path) as (company, server):
        (tmp_path / "other").mkdir()
        other = Company(tmp_path / "other", company.now)
        assert isinstance(await refused(prove(server, other.machine("web-1"))), NotProven)


async def test_what_is_no_machines_certificate_is_refused(tmp_path: Path) -> None:
    """Expired, an authority's, not for signatures, and a root by itself."""
    async with admitting(tmp_path) as (company, server):
        wrong = {
            "not valid now": company.machine("late", ends=timedelta(seconds=-1)),
            "authority's": company.write("middle", company.middle_key, company.middle),
            "not for signatures": company.machine("mute", rsa.generate_private_key(65537, 2048), signs=False),
            "root itself": company.write("root", company.root_key, company.root),
        }
        for words, machine in wrong.items():
            assert words in str(await refused(prove(server, machine)))


async def test_a_proof_is_worth_nothing_for_another_key(tmp_path: Path) -> None:
    """Who sits in between and asks for a certificate of its own is refused: the signature names the machine's key."""
    async with admitting(tmp_path) as (company, server):
        thief = ec.generate_private_key(ec.SECP256R1())
        reason = await refused(prove(server, company.machine("web-1"), signs_for=KEY, asks_for=thief))
        assert "not for this request" in str(reason)


async def test_a_proof_is_worth_nothing_a_second_time(tmp_path: Path) -> None:
    """The server's nonce is another one each time."""
    async with admitting(tmp_path) as (company, server):
        heard: list[bytes] = []
        machine = company.machine("web-1")
        ours, theirs = pipe()

        async def listening() -> None:
            await Prover(machine.settings(), _spki(KEY)).prove(_Listener(ours, heard))

        async with asyncio.TaskGroup() as group:
            group.create_task(listening())
            assert await server.admission.attest(METHOD, csr(KEY), theirs, server.clock.now())
        assert len(heard) == 2
        ours, theirs = pipe()
        for message in heard:
            await ours.send(message)
        with pytest.raises(NotProven, match="signature"):
            await server.admission.attest(METHOD, csr(KEY), theirs, server.clock.now())


class _Listener:
    """A conversation whose every word to the server is overheard."""

    def __init__(self, inner: Conversation, heard: list[bytes]) -> None:
        self._inner, self._heard = inner, heard

    async def send(self, message: bytes) -> None:
        self._heard.append(message)
        await self._inner.send(message)

    async def receive(self) -> bytes:
        return await self._inner.receive()


async def says(server: Parts, company: Company, **first: Any) -> None:
    """Begin with this message."""
    ours, theirs = pipe()
    await ours.send(json.dumps(first).encode())
    await server.admission.attest(METHOD, csr(KEY), theirs, server.clock.now())


@pytest.mark.parametrize(
    "first",
    [
        {},
        {"chain": []},
        {"chain": "x"},
        {"chain": ["%%%"]},
        {"chain": ["AAAA"]},
        {"chain": [None]},
        {"chain": ["AAAA"] * (MOST_CERTIFICATES + 1)},
        {"chain": ["AAAA"], "more": 1},
    ],
)
async def test_a_hostile_first_message(tmp_path: Path, first: dict[str, Any]) -> None:
    """Nothing is asked back."""
    async with admitting(tmp_path) as (company, server):
        with pytest.raises(BadConversation):
            await says(server, company, **first)


@pytest.mark.parametrize(
    "second",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 9000,
        b'{"nonce": "AAAA", "signature": ""}',
        json.dumps({"nonce": base64.b64encode(bytes(32)).decode(), "signature": "!"}).encode(),
        json.dumps({"nonce": base64.b64encode(bytes(32)).decode(), "signature": 1}).encode(),
    ],
)
async def test_a_hostile_second_message(tmp_path: Path, second: bytes) -> None:
    """Refused for what it is."""
    async with admitting(tmp_path) as (company, server):
        ours, theirs = pipe()
        await ours.send(json.dumps({"chain": shown(company.machine("m"))}).encode())
        await ours.send(second)
        with pytest.raises(BadConversation):
            await server.admission.attest(METHOD, csr(KEY), theirs, server.clock.now())


async def test_a_bad_signature_is_no_proof(tmp_path: Path) -> None:
    """Whatever its form."""
    async with admitting(tmp_path) as (company, server):
        ours, theirs = pipe()
        await ours.send(json.dumps({"chain": shown(company.machine("m"))}).encode())
        nonce = base64.b64encode(bytes(32)).decode()
        await ours.send(json.dumps({"nonce": nonce, "signature": "AAAA"}).encode())
        with pytest.raises(NotProven):
            await server.admission.attest(METHOD, csr(KEY), theirs, server.clock.now())


async def test_a_ban_outlives_every_proof(tmp_path: Path) -> None:
    """An eviction does not."""
    async with admitting(tmp_path) as (company, server):
        machine = company.machine("web-1")
        name = (await prove(server, machine)).id.path.rpartition("/")[2]
        await server.admission.send_away(name, NodeState.EVICTED, server.clock.now())
        assert await prove(server, machine)
        await server.admission.send_away(name, NodeState.BANNED, server.clock.now())
        assert isinstance(await refused(prove(server, machine)), Banned)


async def test_a_node_is_out_when_its_certificate_has_expired(tmp_path: Path) -> None:
    """By what it proved; a node that says nothing of it is out as well."""
    async with admitting(tmp_path) as (company, server):
        admitted = await prove(server, company.machine("web-1", ends=DAY))
        now = server.clock.now()
        assert departed(admitted.selectors, now + DAY) == ""
        assert "has expired" in departed(admitted.selectors, now + DAY + timedelta(seconds=1))
        assert departed(frozenset(), now) != ""


@pytest.mark.parametrize("name", ["machine", "{serial}", "{cn}/x", "{CN}", "{other}-{key}", "{key}-", ""])
def test_a_name_must_tell_machines_apart(name: str) -> None:
    """And be a node's name."""
    with pytest.raises(ValueError, match="name"):
        VerifierSettings.model_validate({"roots": (Path("/x"),), "name": name})


def test_the_node_agent_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    """Before anything is sent."""
    company = Company(tmp_path, ManualClock().now())
    machine, other = company.machine("a"), company.machine("b")
    wrong = {
        "can't be read": Machine(tmp_path / "none.pem", machine.key),
        "certificates in PEM": Machine(machine.key, machine.key),
        "private key in PEM": Machine(machine.chain, machine.chain),
        "not that of the first": Machine(machine.chain, other.key),
    }
    for words, one in wrong.items():
        ours, _ = pipe()
        with pytest.raises(Malformed, match=words):
            asyncio.run(Prover(one.settings(), b"").prove(ours))


def test_roots_that_can_not_be_read_admit_nobody(tmp_path: Path) -> None:
    """The server says so; it does not fall back to other roots."""
    company = Company(tmp_path, ManualClock().now())
    settings = VerifierSettings(roots=(tmp_path / "gone.pem",))
    ours, theirs = pipe()

    async def attempt() -> None:
        await ours.send(json.dumps({"chain": shown(company.machine("m"))}).encode())
        await Verifier(settings, Occasion(now=ManualClock().now(), public_key=b"")).verify(theirs)

    with pytest.raises(Malformed, match="can't be read"):
        asyncio.run(attempt())
