"""T35: who was revoked, and still holds streams to the attestor server, or comes again with the same leaf."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestor._proto import node_pb2 as pb
from attestor._proto import task_pb2
from attestor.client.admin import AdminClient
from attestor.instance import new_id
from attestor.server.serve import Server, serve
from attestor.server.settings import Listen
from attestor.wire import node as wire
from attestor.wire import task
from attestor.wire.answers import Unreachable, answers_from
from attestor.wire.node import LiveSet
from ca.errors import Denied, Problem
from ca.runtime.clock import SystemClock
from ca.runtime.metrics import Metrics
from ca.runtime.process import Readiness
from ca.spiffe import der
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.revocation_list import RevocationList
from ca.spiffe.x509svid import X509Peer, verify
from ca.tls import TlsMaterial
from fakes.attestor_parts import attestation, wants
from fakes.node_client import (
    KEY,
    Hearing,
    as_node,
    ask,
    attest,
    connected,
    following,
    material,
    server_settings,
    until,
    watching,
)

SPKI = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
RULES = "rules: [{name: a, nodes: ['node:*'], when: [unix:uid:7], spiffe_id: /a, bind: process}]"


@dataclass
class Held:
    """A server, its node as it was admitted, and what the node's processes got."""

    server: Server
    metrics: Metrics
    admitted: wire.Admission

    def peer(self, chain: bytes) -> X509Peer:
        """Who a chain proves to be."""
        bundle = Bundle.from_jwks(self.admitted.bundle.trust_domain, self.admitted.bundle.document)
        return verify(der.split(chain, "a chain", 8), BundleSet.of(bundle), SystemClock().now())

    def shown(self, chain: bytes) -> TlsMaterial:
        """What its holder shows."""
        return material(chain, self.admitted.bundle.document, self.admitted.bundle.trust_domain)

    async def revoke(self, **what: Any) -> Any:
        """An operator's word."""
        async with AdminClient(self.server.admin_socket) as admin:
            return await admin.post("/v1/revocations", what)

    async def revoke_leaf(self, chain: bytes) -> Any:
        """Of one leaf."""
        peer = self.peer(chain)
        return await self.revoke(leaf={"issuer_key_id": peer.issuer_key_id.hex(), "serial": f"{peer.serial:x}"})


@asynccontextmanager
async def held(folder: Path, **changes: Any) -> AsyncIterator[Held]:
    """A server, for at most a minute, and a node."""
    (folder / "rules.yaml").write_text(RULES)
    metrics = Metrics()
    settings = server_settings(folder, **changes)
    async with asyncio.timeout(60), serve(settings, SystemClock(), Readiness(), metrics) as server:
        yield Held(server, metrics, await attest(server.address, await server.issue_token("n")))


async def leaf(node: Channel, path: str, selector: str, instance: str) -> bytes:
    """A leaf for a process."""
    asked = wire.encode_sign([wants(path, attestation(selector, instance=instance), SPKI)])
    (signed,) = wire.decode_signed(await ask(node, wire.SIGN, asked, pb.SignResponse))
    assert isinstance(signed, wire.Signed)
    return signed.chain


def live(*instances: str, counter: int = 1) -> pb.FollowRequest:
    """A report."""
    return wire.encode_live(LiveSet(counter=counter, instances=frozenset(instances)))


async def test_a_revoked_broker_s_stream_ends_and_it_does_not_come_in_again(tmp_path: Path) -> None:
    """The stream at the next message, a new connection in the handshake, which is counted with its reason."""
    async with held(tmp_path) as open_, as_node(open_.server.address, open_.admitted) as node:
        async with following(node) as follow:
            broker = new_id()
            await follow.send_message(live(broker))
            hear = Hearing()
            await until(follow, hear, lambda _: True)
            chain = await leaf(node, "/sojourn/broker", "unix:self:true", broker)
            async with connected(open_.server.address, open_.shown(chain), lambda _: "server") as link:
                with pytest.raises(GRPCError) as ended:
                    await watched_until_revoked(link, open_, chain, broker)
                assert ended.value.status is Status.PERMISSION_DENIED
            serial = open_.peer(chain).serial
            await until(follow, hear, lambda _: names(hear.lists, serial))
            async with connected(open_.server.address, open_.shown(chain), lambda _: "server") as link:
                with pytest.raises(Unreachable), answers_from("the server"):
                    await ask(link, task.BIND, task.encode_bind(broker), task_pb2.BindResponse)
        assert b'sojourn_handshakes_refused_total{reason="revoked"} 1.0' in open_.metrics.render()


async def watched_until_revoked(link: Channel, open_: Held, chain: bytes, broker: str) -> None:
    """Hold a stream, have the leaf revoked, and hear the stream to its end."""
    async with watching(link) as watch:
        await watch.send_message(task.encode_watch([broker]), end=True)
        await until(watch, task.decode_watched, lambda step: isinstance(step, task.Snapshot))
        assert (await open_.revoke_leaf(chain))["leaf_count"] == 1
        while await watch.recv_message() is not None:
            pass
        await watch.recv_trailing_metadata()


def names(lists: tuple[bytes, ...], serial: int) -> bool:
    """Whether one of the lists takes it back."""
    return any(serial in RevocationList.parse(one).serials for one in lists)


async def follow_until_revoked(node: Channel, open_: Held) -> None:
    """Hold the node's stream, have its leaf revoked, and hear the stream to its end."""
    async with following(node) as follow:
        hear = Hearing()
        await until(follow, hear, lambda _: True)
        await open_.revoke_leaf(open_.admitted.chain)
        await until(follow, hear, lambda _: False)


async def test_a_revoked_node_is_told_so_and_may_attest_anew(tmp_path: Path) -> None:
    """On its stream and on each call, in words: so it drops the leaf at once instead of knocking until it expires."""
    async with held(tmp_path) as open_, as_node(open_.server.address, open_.admitted) as node:
        with pytest.raises(GRPCError, match="revoked") as ended:
            await follow_until_revoked(node, open_)
        assert ended.value.status is Status.PERMISSION_DENIED
        async with as_node(open_.server.address, open_.admitted) as again:
            problem = await refusal(again)
        assert isinstance(problem, Denied)
        assert "revoked" in str(problem)
        anew = await attest(open_.server.address, await open_.server.issue_token("n"))
        async with as_node(open_.server.address, anew) as back, following(back) as follow:
            await until(follow, Hearing(), lambda _: True)


async def refusal(channel: Channel) -> Problem:
    """What a node's call is refused with."""
    with pytest.raises(Problem) as refused, answers_from("the server"):
        await ask(channel, wire.RESOLVE, wire.encode_resolve([attestation("unix:uid:7")]), pb.ResolveResponse)
    return refused.value


async def test_the_list_is_pushed_and_readable_by_anybody(tmp_path: Path) -> None:
    """A bound instance ends: the node's stream carries a list that names its leaf, and so does `/crl`."""
    async with held(tmp_path, public=Listen()) as open_, as_node(open_.server.address, open_.admitted) as node:
        async with following(node) as follow:
            ended = new_id()
            await follow.send_message(live(ended))
            hear = Hearing()
            await until(follow, hear, lambda _: bool(hear.lists))
            peer = open_.peer(await leaf(node, "/a", "unix:uid:7", ended))
            await follow.send_message(live(counter=2))
            await until(follow, hear, lambda _: names(hear.lists, peer.serial))
        found = await crl(open_, peer.issuer_key_id.hex())
        assert peer.serial in RevocationList.parse(found).serials
        assert await crl(open_, "ff" * 20) is None


async def crl(open_: Held, issuer: str) -> Any:
    """A list as a stranger reads it, if there is one; the names say that there is."""
    assert open_.server.public_address is not None
    host, port = open_.server.public_address
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession(f"https://{host}:{port}", connector=aiohttp.TCPConnector(ssl=context)) as session:
        async with session.get("/crl") as answer:
            known = {one["issuer_key_id"] for one in (await answer.json())["lists"]}
        async with session.get(f"/crl/{issuer}") as answer:
            assert (answer.status == 200) == (issuer in known)
            return await answer.read() if answer.status == 200 else None


async def test_the_server_itself_shows_another_leaf_when_its_own_was_revoked(tmp_path: Path) -> None:
    """Otherwise an order below `/sojourn` would cut off every node."""
    async with held(tmp_path) as open_:
        before = await shown_by(open_)
        assert (await open_.revoke(under="/sojourn/server"))["leaf_count"] == 1
        async with as_node(open_.server.address, open_.admitted) as node, following(node) as follow:
            hear = Hearing()
            await until(follow, hear, lambda _: names(hear.lists, before))
            while await shown_by(open_) == before:
                await follow.recv_message()  # a beat


async def shown_by(open_: Held) -> int:
    """The serial of the leaf a new connection is shown."""
    seen: list[int] = []

    def verify_nobody(chain: Any) -> str:
        seen.append(der.certificate(chain[0], "the server's chain").serial_number)
        return "server"

    async with connected(open_.server.address, None, verify_nobody) as link:
        with pytest.raises(Problem), answers_from("the server"):
            await ask(link, wire.RESOLVE, pb.ResolveRequest(), pb.ResolveResponse)
    return seen[0]
