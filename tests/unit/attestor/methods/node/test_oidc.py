"""CI jobs as nodes, by their tokens, against a real issuer over TLS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.conversation import pipe
from attestor.errors import BadConversation, NotProven
from attestor.methods.node.oidc import METHOD, Prover, ProverSettings, Verifier, VerifierSettings
from attestor.selector import texts
from attestor.wire.node import Admission
from ca.errors import Malformed
from fakes import issuers
from fakes.attestor_parts import KEY, Parts, csr, parts
from fakes.clock import ManualClock
from fakes.issuers import SUBJECT, FakeIssuer


@asynccontextmanager
async def admitting(folder: Path, **settings: Any) -> AsyncIterator[tuple[FakeIssuer, Parts]]:
    """A server's parts that take the jobs of the issuer `ci` as nodes."""
    clock = ManualClock()
    async with issuers.platform(folder, clock, **settings) as (issuer, one):
        known = VerifierSettings(issuers=("ci",))
        verifiers = {METHOD: partial(Verifier, known, {"ci": one, "other": one})}
        async with parts(folder, verifiers=verifiers, clock=clock) as server:
            yield issuer, server


async def prove(server: Parts, token: str, *, issuer: str = "ci", key: ec.EllipticCurvePrivateKey = KEY) -> Admission:
    """What a job with that token is given."""
    ours, theirs = pipe()
    await ours.send(json.dumps({"issuer": issuer, "token": token}).encode())
    return await server.admission.attest(METHOD, csr(key), theirs, server.clock.now())


async def test_a_job_is_a_node(tmp_path: Path) -> None:
    """The same one each time it runs; another subject is another node."""
    async with admitting(tmp_path) as (issuer, server):
        first = await prove(server, issuer.token(aud="sojourn-node"))
        name = first.id.path.rpartition("/")[2]
        assert name.startswith("ci-")
        assert texts(first.selectors) == [f"node:{one}" for one in ("method:oidc", f"name:{name}")] + [
            "oidc:issuer:ci",
            "oidc:protected:true",
            "oidc:repository:acme/app",
            "oidc:run:7",
            f"oidc:sub:{SUBJECT}",
        ]
        assert (await prove(server, issuer.token(aud="sojourn-node", jti="2"))).id == first.id
        other = issuer.token(aud="sojourn-node", sub="repo:acme/other:ref:refs/heads/main")
        assert (await prove(server, other)).id != first.id


async def test_a_token_out_of_a_log_comes_too_late(tmp_path: Path) -> None:
    """It is good for the key it was first shown with; the job itself may show it again."""
    async with admitting(tmp_path) as (issuer, server):
        token = issuer.token(aud="sojourn-node")
        admitted = await prove(server, token)
        with pytest.raises(NotProven, match="another key"):
            await prove(server, token, key=ec.generate_private_key(ec.SECP256R1()))
        assert (await server.admission.recognise(server.peer(admitted.chain), server.clock.now())).method == METHOD
        await prove(server, token)


async def test_a_jobs_own_token_makes_nobody_a_node(tmp_path: Path) -> None:
    """Another audience; an issuer that is known, and not for nodes; one that is not known."""
    async with admitting(tmp_path) as (issuer, server):
        for token, name in (
            (issuer.token(), "ci"),
            (issuer.token(aud="sojourn-node"), "other"),
            (issuer.token(aud="sojourn-node"), "nobody"),
            (issuer.token(aud="sojourn-node", sub="repo:evil/app:ref:refs/heads/main"), "ci"),
            (issuer.token(aud="sojourn-node", exp=1), "ci"),
        ):
            with pytest.raises(NotProven):
                await prove(server, token, issuer=name)


@pytest.mark.parametrize("message", [b"", b"[]", b"{}", b'{"issuer": 1, "token": ""}', b'{"issuer": "ci"}'])
async def test_a_proof_of_another_form_is_refused(tmp_path: Path, message: bytes) -> None:
    """Before the issuer is asked for keys."""
    async with admitting(tmp_path) as (issuer, server):
        ours, theirs = pipe()
        await ours.send(message)
        with pytest.raises(BadConversation):
            await server.admission.attest(METHOD, csr(), theirs, server.clock.now())
        assert issuer.fetched == 0


async def test_the_prover_reads_the_token_each_time(tmp_path: Path) -> None:
    """A job may ask its system for a newer one."""
    settings = ProverSettings(method="oidc", issuer="ci", token_file=tmp_path / "token")
    ours, theirs = pipe()
    with pytest.raises(Malformed, match="can't be read"):
        await Prover(settings).prove(ours)
    settings.token_file.write_text("one\n")
    await Prover(settings).prove(ours)
    assert await theirs.receive() == b'{"issuer": "ci", "token": "one"}'
