"""Nodes: admitted, recognised, renewed, sent away."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.conversation import pipe
from attestor.errors import BadConversation, Banned, NotProven, UnknownNode
from attestor.instance import State
from attestor.selector import parse_all
from attestor.server.store.nodes import NodeState
from attestor.wire.attestation import HIGHEST_COUNTER
from attestor.wire.node import LiveSet
from ca.errors import Malformed, Unauthenticated
from ca.runtime.database import Transaction
from ca.spiffe.bundle import Bundle
from fakes.attestor_parts import attestation, csr, parts


async def test_a_node_gets_an_identity_and_the_bundle(tmp_path: Path) -> None:
    """Named as its token says, with selectors the server verified."""
    async with parts(tmp_path) as server:
        admitted = await server.admit("web-1")
        assert admitted.id == server.peer_id("web-1")
        assert admitted.selectors == parse_all(["node:name:web-1", "node:method:join_token"])
        bundle = Bundle.from_jwks(admitted.bundle.trust_domain, admitted.bundle.document)
        assert bundle.x509_authorities == server.authority.bundle(server.clock.now()).x509_authorities
        assert server.peer(admitted.chain).id == admitted.id


async def test_a_token_for_any_node_names_it_by_itself(tmp_path: Path) -> None:
    """Two nodes never share a name by accident."""
    async with parts(tmp_path) as server:
        issued = await server.admission.issue_token(None, timedelta(minutes=1), server.clock.now())
        assert (await server.prove(issued.token)).id == server.peer_id(issued.token.id)


async def test_recognition_looks_at_the_certificate_and_the_store_each_time(tmp_path: Path) -> None:
    """None, another identity, expired, unknown, evicted, banned: each is refused."""
    async with parts(tmp_path) as server:
        peer = server.peer((await server.admit("n")).chain)
        now = server.clock.now()
        assert (await server.admission.recognise(peer, now)).id == "n"
        with pytest.raises(Unauthenticated, match="needs the node's own"):
            await server.admission.recognise(None, now)
        for path in ("/agent", "/sojourn/node/", "/sojourn/node/a/b", "/sojourn/broker", "/x/sojourn/node/n"):
            other = replace(peer, id=replace(peer.id, path=path))
            with pytest.raises(Unauthenticated, match="is not a node"):
                await server.admission.recognise(other, now)
        with pytest.raises(Unauthenticated, match="has expired"):
            await server.admission.recognise(peer, peer.not_after)
        with pytest.raises(UnknownNode):
            await server.admission.recognise(replace(peer, id=server.peer_id("stranger")), now)
        await server.admission.send_away("n", NodeState.EVICTED, now)
        with pytest.raises(Banned, match="evicted"):
            await server.admission.recognise(peer, now)


async def test_a_leaf_of_an_earlier_admission_opens_nothing(tmp_path: Path) -> None:
    """A machine set up anew leaves whoever copied the old key outside."""
    async with parts(tmp_path) as server:
        old, new = await server.admit("n"), await server.admit("n")
        assert (await server.admission.recognise(server.peer(new.chain), server.clock.now())).id == "n"
        with pytest.raises(Banned, match="admitted anew"):
            await server.admission.recognise(server.peer(old.chain), server.clock.now())


async def test_renewal_keeps_the_admission(tmp_path: Path) -> None:
    """With a new key and a later end."""
    async with parts(tmp_path) as server:
        first = server.peer((await server.admit("n")).chain)
        await server.clock.advance(1800)
        node = await server.admission.recognise(first, server.clock.now())
        renewed = await server.admission.renew(node, csr(ec.generate_private_key(ec.SECP256R1())), server.clock.now())
        peer = server.peer(renewed.chain)
        assert peer.instance == first.instance
        assert peer.not_after == first.not_after + timedelta(minutes=30)


async def test_an_evicted_node_may_come_back_and_a_banned_one_may_not(tmp_path: Path) -> None:
    """Not even with a token that was issued before."""
    async with parts(tmp_path) as server:
        await server.admit("n")
        now = server.clock.now()
        await server.admission.send_away("n", NodeState.EVICTED, now)
        await server.admit("n")
        waiting = await server.admission.issue_token("n", timedelta(minutes=1), now)
        assert (await server.admission.send_away("n", NodeState.BANNED, now))[0] is NodeState.BANNED
        assert (await server.admission.send_away("n", NodeState.EVICTED, now))[0] is NodeState.BANNED
        with pytest.raises(Banned):
            await server.prove(waiting.token)
        with pytest.raises(Banned):
            await server.admission.issue_token("n", timedelta(minutes=1), now)
        with pytest.raises(UnknownNode):
            await server.admission.send_away("nobody", NodeState.BANNED, now)


async def test_a_lifted_ban_lets_a_node_prove_itself_anew(tmp_path: Path) -> None:
    """It is not admitted by that; of a node that is not banned nothing changes."""
    async with parts(tmp_path) as server:
        before, now = server.peer((await server.admit("n")).chain), server.clock.now()
        assert await server.admission.lift_ban("n") is NodeState.ADMITTED
        await server.admission.send_away("n", NodeState.BANNED, now)
        assert await server.admission.lift_ban("n") is NodeState.EVICTED
        with pytest.raises(Banned):
            await server.admission.recognise(before, now)
        assert (await server.admit("n")).id == server.peer_id("n")
        with pytest.raises(UnknownNode):
            await server.admission.lift_ban("stranger")


async def test_a_machine_set_up_anew_counts_anew(tmp_path: Path) -> None:
    """Who had it before used up every number of a live set, and named an instance with the highest; both are over."""
    async with parts(tmp_path) as server:
        node, now = await server.join("n"), server.clock.now()

        async def unit(tx: Transaction) -> None:
            await server.instances.begin(tx, node)
            await server.instances.enter(tx, node, attestation(counter=HIGHEST_COUNTER), [], now)

        await server.database.write(unit)
        await server.instances.report(node, LiveSet(counter=HIGHEST_COUNTER - 1, instances=frozenset()), now)
        assert await server.instances.counter(await server.node(server.peer_id("n"))) == HIGHEST_COUNTER
        await server.admission.send_away("n", NodeState.EVICTED, now)
        again = await server.join("n")
        assert await server.instances.counter(again) == 0
        assert await server.instances.report(again, LiveSet(counter=1, instances=frozenset()), now) is not None


async def test_instances_that_live_on_are_counted_on_from(tmp_path: Path) -> None:
    """A machine that proves itself again without an eviction: its instances' numbers are still above the start."""
    async with parts(tmp_path) as server:
        node, now = await server.join("n"), server.clock.now()
        one = attestation(counter=7)

        async def unit(tx: Transaction) -> None:
            await server.instances.enter(tx, node, one, [], now)

        await server.database.write(unit)
        again = await server.join("n")
        assert await server.instances.counter(again) == 7
        await server.instances.report(again, LiveSet(counter=8, instances=frozenset()), now)
        assert await server.instances.state(one.instance) is State.ENDED


@pytest.mark.parametrize("message", [b"", b"\xff", b"x.y", b"0123456789abcdef", b"0123456789abcdef." + b"a" * 44])
async def test_a_proof_that_is_none_is_refused(tmp_path: Path, message: bytes) -> None:
    """Before the store is asked."""
    async with parts(tmp_path) as server:
        ours, theirs = pipe()
        await ours.send(message)
        with pytest.raises(BadConversation):
            await server.admission.attest("join_token", csr(), theirs, server.clock.now())


async def test_another_method_or_a_request_without_its_key_is_refused(tmp_path: Path) -> None:
    """The request's signature shows that its sender has the key."""
    async with parts(tmp_path) as server:
        _, theirs = pipe()
        with pytest.raises(NotProven, match="is not a method"):
            await server.admission.attest("password", csr(), theirs, server.clock.now())
        forged = bytearray(csr())
        forged[-1] ^= 1
        for bad in (b"", b"x", bytes(forged), b"\0" * 10_000):
            with pytest.raises(Malformed):
                await server.admission.attest("join_token", bad, theirs, server.clock.now())


@pytest.mark.parametrize("name", ["", "Web", "a/b", "..", "-a", "a" * 65, "a b", "é"])
async def test_a_nodes_name_is_one_plain_segment(tmp_path: Path, name: str) -> None:
    """It becomes part of a SPIFFE ID."""
    async with parts(tmp_path) as server:
        with pytest.raises(Malformed):
            await server.admission.issue_token(name, timedelta(minutes=1), server.clock.now())
