"""Machines with a TPM, against a server's parts; the TPMs are real ones in software."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.conversation import Conversation, pipe
from attestor.errors import BadConversation, Banned, NotProven
from attestor.methods.node.chains import sha256
from attestor.methods.node.tpm import METHOD, Prover, ProverSettings, Verifier, VerifierSettings, _extra, departed
from attestor.methods.tpm.device import Device
from attestor.selector import texts
from attestor.server.store.nodes import NodeState
from attestor.wire.node import Admission
from ca.errors import Unavailable
from ca.runtime.clock import SystemClock
from fakes.attestor_parts import KEY, SPKI, Parts, csr, parts
from fakes.clock import ManualClock
from fakes.tpms import Forged, Statement, selection
from servers import swtpm

OTHER = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> swtpm.Maker:
    """Of two TPMs, `a` and `b`."""
    found = swtpm.Maker(tmp_path_factory.mktemp("maker"))
    for name in ("a", "b"):
        found.tpm(found.folder / name)
    return found


@asynccontextmanager
async def admitting(folder: Path, **settings: Any) -> AsyncIterator[Parts]:
    """A server that knows these TPMs."""
    known = VerifierSettings.model_validate(settings)
    clock = ManualClock(SystemClock().now())  # swtpm's maker certifies from now on
    async with parts(folder, verifiers={METHOD: partial(Verifier, known)}, clock=clock) as server:
        yield server


async def prove(server: Parts, prover: Callable[[Conversation], Any], key: Any = KEY) -> Admission:
    """What somebody is given who says this and asks for a certificate of `key`; or the reason why nothing."""
    ours, theirs = pipe()
    try:
        async with asyncio.TaskGroup() as group:
            proving = group.create_task(prover(ours))
            try:
                return await server.admission.attest(METHOD, csr(key), theirs, server.clock.now())
            finally:
                proving.cancel()
    except BaseExceptionGroup as reasons:
        raise reasons.exceptions[0] from reasons


def honest(tcti: str, kind: str = "rsa-2048") -> Callable[[Conversation], Any]:
    """A node agent, for `KEY`."""
    return Prover(ProverSettings.model_validate({"method": "tpm", "tcti": tcti, "kind": kind}), SPKI).prove


async def test_a_machine_is_a_node(tmp_path: Path, maker: swtpm.Maker) -> None:
    """The same one each time, another than its neighbour; banned it stays out, evicted it may come back."""
    wanted = {"roots": (maker.issuer,), "pcrs": {0: (), 7: ("00" * 32,)}}
    async with (
        admitting(tmp_path, **wanted) as server,
        swtpm.running(maker.folder / "a") as a,
        swtpm.running(maker.folder / "b") as b,
    ):
        first = await prove(server, honest(a))
        assert {f"tpm:pcr:7:{'00' * 32}", "node:method:tpm"} <= set(texts(first.selectors))
        assert departed(VerifierSettings.model_validate(wanted), first.selectors) == ""
        strict = VerifierSettings.model_validate({**wanted, "pcrs": {7: ("11" * 32,)}})
        assert "no longer allowed" in departed(strict, first.selectors)
        assert (await prove(server, honest(b))).id != first.id
        name = first.id.path.rpartition("/")[2]
        await server.admission.send_away(name, NodeState.EVICTED, server.clock.now())
        assert (await prove(server, honest(a))).id == first.id
        await server.admission.send_away(name, NodeState.BANNED, server.clock.now())
        with pytest.raises(Banned):
            await prove(server, honest(a))


async def test_only_known_tpms_are_taken(tmp_path: Path, maker: swtpm.Maker) -> None:
    """By the list without any certificate; another maker's, another kind and one not in the list are refused."""
    listed = tmp_path / "keys"
    async with swtpm.running(maker.folder / "a") as a, swtpm.running(maker.folder / "b") as b:
        device = Device(a, "p-256")
        listed.write_text(f"# ours\n{sha256(device.shown.endorsement_key)}  # a\n")
        device.close()
        async with admitting(tmp_path, keys=listed, kind="p-256") as server:
            found = await prove(server, honest(a, "p-256"))
            assert departed(VerifierSettings(keys=listed), found.selectors) == ""
            for stranger in (honest(b, "p-256"), honest(a, "rsa-2048")):
                with pytest.raises(NotProven, match="endorsement key"):
                    await prove(server, stranger)
            listed.write_text("")
            assert "no longer in the list" in departed(VerifierSettings(keys=listed), found.selectors)
        other = swtpm.Maker(tmp_path / "other")
        other.tpm(tmp_path / "c")
        (tmp_path / "by-root").mkdir()
        async with admitting(tmp_path / "by-root", roots=(other.issuer,)) as server:
            with pytest.raises(NotProven, match="does not lead"):
                await prove(server, honest(a))


async def test_a_proof_is_worth_nothing_elsewhere(tmp_path: Path, maker: swtpm.Maker) -> None:
    """For another key, a second time, or with the attestation key of another TPM."""
    async with (
        admitting(tmp_path, roots=(maker.issuer,)) as server,
        swtpm.running(maker.folder / "a") as a,
        swtpm.running(maker.folder / "b") as b,
    ):
        with pytest.raises(NotProven, match="not for this request"):
            await prove(server, honest(a), OTHER)
        heard: list[bytes] = []

        async def overheard(conversation: Conversation) -> None:
            await honest(a)(_Listener(conversation, heard))

        await prove(server, overheard)

        async def replayed(conversation: Conversation) -> None:
            for one in heard:
                await conversation.send(one)

        with pytest.raises(NotProven, match="not for this request"):
            await prove(server, replayed)

        async def mixed(conversation: Conversation) -> None:
            await _mixed(conversation, Device(a, "rsa-2048"), Device(b, "rsa-2048"))

        with pytest.raises(NotProven, match="no key of that TPM"):
            await prove(server, mixed)


async def _mixed(conversation: Conversation, known: Device, thiefs: Device) -> None:
    """The endorsement key of a known TPM, and the attestation key of the thief's: neither opens the secret."""
    shown = known.shown
    await conversation.send(
        _said(ek=shown.endorsement_key, certificate=shown.certificate, ak=thiefs.shown.attestation_key)
    )
    asked = json.loads(await conversation.receive())
    for device in (known, thiefs):
        with pytest.raises(Unavailable):
            device.activate(b64decode(asked["credential"]), b64decode(asked["seed"]))
    quoted = thiefs.quote(bytes(32), [])
    known.close()
    thiefs.close()
    await conversation.send(_said(quote=quoted.statement, signature=quoted.signature, pcrs=[]))


class _Listener:
    """A conversation whose every word to the server is overheard."""

    def __init__(self, inner: Conversation, heard: list[bytes]) -> None:
        self._inner, self._heard = inner, heard

    async def send(self, message: bytes) -> None:
        self._heard.append(message)
        await self._inner.send(message)

    async def receive(self) -> bytes:
        return await self._inner.receive()


def _said(**said: Any) -> bytes:
    return json.dumps(
        {key: b64encode(value).decode() if isinstance(value, bytes) else value for key, value in said.items()}
    ).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"magic": b"\xff\x54\x43\x48"}, "not made by a TPM"),
        ({"kind": b"\x80\x17"}, "no quote"),
        ({"extra": bytes(32)}, "not for this request"),
        ({"selected": selection(1)}, "registers"),
        ({"digest": b"\0\x20" + bytes(32)}, "registers"),
        ({"rest": b"\0"}, "more bytes"),
    ],
)
async def test_a_forged_statement(tmp_path: Path, change: dict[str, bytes], words: str) -> None:
    """Signed by a key that was proven to be the TPM's: each part is looked at all the same."""
    forged = Forged()
    (tmp_path / "keys").write_text(sha256(forged.ek))

    async def said(conversation: Conversation) -> None:
        await conversation.send(_said(ek=forged.ek, certificate=b"", ak=forged.area))
        asked = json.loads(await conversation.receive())
        secret = forged.open(b64decode(asked["credential"]), b64decode(asked["seed"]))
        extra = _extra(secret, forged.ek, forged.area, SPKI)
        statement = bytes(Statement(**{"extra": extra, **change}))
        await conversation.send(_said(quote=statement, signature=forged.sign(statement), pcrs=[]))

    async with admitting(tmp_path, keys=tmp_path / "keys") as server:
        if not words:
            assert await prove(server, said)
            return
        with pytest.raises((NotProven, BadConversation), match=words):
            await prove(server, said)


@pytest.mark.parametrize(
    "first",
    [b"", b"[]", b"\xff", b"[" * 9000, _said(ek=b"x"), _said(ek=b"x", certificate=b"", ak=b"")],
)
async def test_a_hostile_first_message(tmp_path: Path, first: bytes) -> None:
    """Nothing is asked back."""
    (tmp_path / "keys").write_text("")
    async with admitting(tmp_path, keys=tmp_path / "keys") as server:
        with pytest.raises(BadConversation):
            await prove(server, lambda conversation: conversation.send(first))


@pytest.mark.parametrize(
    "wrong", [{}, {"roots": (Path("/x"),), "pcrs": {24: ()}}, {"roots": (Path("/x"),), "pcrs": {0: ("00",)}}]
)
def test_settings_that_know_no_tpm_or_no_register(wrong: dict[str, Any]) -> None:
    """Are refused."""
    with pytest.raises(ValueError, match=r"expected|less than|pattern"):
        VerifierSettings.model_validate(wrong)
