"""Traps 10: a join token proves the node to the server, and the server to the node; and it is used once.

The attacker sits between node and server with a certificate of its own, has read the server's store, or has seen a
token that was used.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestor.errors import NotProven
from attestor.methods.node.join_token import JoinToken
from attestor.server.admission import Admission
from attestor.server.risks import Risk, Risks
from attestor.server.serve import Server, serve
from ca.errors import Malformed
from ca.runtime.clock import SystemClock
from ca.runtime.database import Database, Transaction
from ca.runtime.metrics import Metrics
from ca.runtime.process import Readiness
from ca.runtime.secret import Secret
from fakes.attestor_parts import parts
from fakes.clock import ManualClock
from fakes.node_client import attest, server_settings


def running(folder: Path) -> AbstractAsyncContextManager[Server]:
    """A server on real sockets."""
    folder.mkdir(exist_ok=True)
    return serve(server_settings(folder), SystemClock(), Readiness())


async def test_a_node_does_not_speak_to_an_impostor(tmp_path: Path) -> None:
    """A server under another root fails the handshake, so it never sees the secret: the token still works."""
    async with asyncio.timeout(60), running(tmp_path / "real") as real, running(tmp_path / "impostor") as impostor:
        token = await real.issue_token("n")
        with pytest.raises(OSError, match="root is not the one"):
            await attest(impostor.address, token)
        assert str((await attest(real.address, token)).id) == "spiffe://example.org/sojourn/node/n"


async def test_a_token_is_used_once_over_the_wire(tmp_path: Path) -> None:
    """The second node is refused, and told no more than that."""
    async with asyncio.timeout(60), running(tmp_path / "real") as real:
        token = await real.issue_token("n")
        await attest(real.address, token)
        with pytest.raises(GRPCError) as refused:
            await attest(real.address, token)
        assert refused.value.status is Status.UNAUTHENTICATED
        assert refused.value.message == "the join token is unknown, used or expired"


async def test_of_many_who_present_a_token_at_once_one_wins(tmp_path: Path) -> None:
    """Redemption is one compare-and-swap."""
    async with parts(tmp_path) as server:
        issued = await server.admission.issue_token("n", timedelta(minutes=1), server.clock.now())
        tries = (server.prove(issued.token) for _ in range(20))
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(not isinstance(one, Exception) for one in results) == 1
        assert sum(isinstance(one, NotProven) for one in results) == 19


async def test_a_token_ends_by_itself(tmp_path: Path) -> None:
    """After its ten minutes it opens nothing."""
    async with parts(tmp_path) as server:
        issued = await server.admission.issue_token(None, timedelta(minutes=10), server.clock.now())
        await server.clock.advance(600)
        with pytest.raises(NotProven):
            await server.prove(issued.token)


async def test_a_token_that_comes_twice_is_told(tmp_path: Path) -> None:
    """To operators, with the node that was admitted by it; guesses and expired tokens are no news."""
    async with parts(tmp_path) as server:
        now, risks = server.clock.now(), Risks(server.database, Metrics())
        used = (await server.admission.issue_token("n", timedelta(minutes=1), now)).token
        late = (await server.admission.issue_token("late", timedelta(minutes=1), now)).token
        await server.prove(used)
        await server.clock.advance(120)
        for token in (late, JoinToken.new(used.root_key_hash), replace(used, secret=late.secret)):
            with pytest.raises(NotProven):
                await server.prove(token)
        assert await risks.newest() == []
        with pytest.raises(NotProven):
            await server.prove(used)
        (risk,) = await risks.newest()
        assert (risk.kind, risk.subject) == (Risk.TOKEN_TWICE, "node n")
        assert used.id in risk.detail
        assert used.secret.reveal() not in risk.detail


class _ReadOnly:
    """A store that takes no write."""

    def __init__(self, inner: Database) -> None:
        self.read = inner.read

    async def write(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a stranger made the store write")


async def test_a_guess_costs_no_write(tmp_path: Path) -> None:
    """Whoever needs no certificate may ask: the one writer of the store is not his to keep busy."""
    async with parts(tmp_path) as server:
        store: Any = _ReadOnly(server.database)
        admission = Admission(
            store, server.leaves, server.instances, server.changes, Metrics(), node_ttl=timedelta(hours=1)
        )
        token = (await server.admission.issue_token("n", timedelta(minutes=1), server.clock.now())).token
        other = JoinToken.new(token.root_key_hash)
        for guess in (other, replace(token, secret=other.secret), replace(other, secret=token.secret)):
            with pytest.raises(NotProven):
                await replace(server, admission=admission).prove(guess)


async def test_half_a_token_is_none(tmp_path: Path) -> None:
    """The id without the secret, or with another one, redeems nothing and uses nothing up."""
    async with parts(tmp_path) as server:
        issued = await server.admission.issue_token("n", timedelta(minutes=1), server.clock.now())
        other = JoinToken.new(issued.token.root_key_hash)
        for forged in (
            JoinToken(issued.token.id, other.secret, issued.token.root_key_hash),
            JoinToken(other.id, issued.token.secret, issued.token.root_key_hash),
        ):
            with pytest.raises(NotProven):
                await server.prove(forged)
        assert (await server.prove(issued.token)).id == server.peer_id("n")


async def test_whoever_reads_the_store_has_no_token(tmp_path: Path) -> None:
    """Only a hash rests there; no file of the store holds the secret."""
    async with parts(tmp_path) as server:
        issued = await server.admission.issue_token("n", timedelta(minutes=1), server.clock.now())
        secret = issued.token.secret.reveal()

        async def rows(tx: Transaction) -> str:
            return str([dict(row) for row in await tx.fetch("SELECT * FROM join_tokens ORDER BY id")])

        stored = await server.database.read(rows)
        assert issued.token.id in stored
        assert secret not in stored
        with pytest.raises(NotProven):
            await server.prove(JoinToken(issued.token.id, Secret(secret[::-1]), issued.token.root_key_hash))
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_a_token_names_the_key_and_is_not_printed() -> None:
    """Its form is exact, its secret in no repr, and a bad one is not repeated."""
    token = JoinToken.new("ab" * 32)
    assert JoinToken.parse(token.reveal()) == token
    assert token.reveal().endswith("." + "ab" * 32)
    assert token.secret.reveal() not in repr(token)
    for bad in (
        token.reveal()[:-1],
        token.reveal().replace("sj1", "sj2"),
        "",
        token.secret.reveal(),
        token.reveal() + "\n.x",
    ):
        with pytest.raises(Malformed) as refused:
            JoinToken.parse(bad)
        assert token.secret.reveal() not in str(refused.value)


async def test_the_clock_of_the_server_decides(tmp_path: Path) -> None:
    """A token of the future is none: a clock that was set back does not lengthen its life."""
    async with parts(tmp_path) as server:
        later = server.clock.now() + timedelta(hours=1)
        issued = await server.admission.issue_token("n", timedelta(minutes=10), later)
        assert isinstance(server.clock, ManualClock)
        with pytest.raises(NotProven):
            await server.prove(issued.token)
