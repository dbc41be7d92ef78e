"""A whole attestor server on real sockets, spoken to over gRPC and its admin socket."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from grpclib.client import Channel, Stream
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from attestor._proto import node_pb2 as pb
from attestor._proto import task_pb2
from attestor.instance import State, new_id
from attestor.server.serve import Server, serve
from attestor.server.settings import Keys, Listen
from attestor.wire import node as wire
from attestor.wire import task
from attestor.wire.node import LiveSet
from ca.runtime.clock import SystemClock
from ca.runtime.document import BadSettings
from ca.runtime.process import Readiness
from ca.runtime.secret import Reference
from ca.spiffe import der
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.id import TrustDomain
from ca.spiffe.x509svid import verify
from fakes.attestor_parts import attestation, csr, wants
from fakes.node_client import (
    KEY,
    Hearing,
    as_node,
    ask,
    attest,
    connected,
    following,
    material,
    pinned,
    server_settings,
    until,
    watching,
)

RULE = """\
rules:
  - {name: agent, nodes: ["node:name:n"], when: ["unix:uid:7"], spiffe_id: /agent, bind: process}
"""
OWN_SPKI = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@asynccontextmanager
async def held(server: Server) -> AsyncIterator[tuple[Channel, Stream[Any, Any]]]:
    """A node's connection and the stream it follows."""
    async with as_node(server.address, await join(server)) as channel, following(channel) as stream:
        yield channel, stream


@asynccontextmanager
async def running(folder: Path, rules: str = RULE, **changes: Any) -> AsyncIterator[Server]:
    """A server, for at most a minute."""
    (folder / "rules.yaml").write_text(rules)
    async with asyncio.timeout(60), serve(server_settings(folder, **changes), SystemClock(), Readiness()) as server:
        yield server


async def admin(server: Server, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the admin socket."""
    connector = aiohttp.UnixConnector(path=str(server.admin_socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://sojourn{path}", json=body) as response,
    ):
        return response.status, await response.json()


async def join(server: Server, name: str = "n") -> wire.Admission:
    """Admit a node."""
    return await attest(server.address, await server.issue_token(name))


async def test_from_a_token_to_a_leaf(tmp_path: Path) -> None:
    """Attest, follow, resolve, sign: the leaf verifies against the bundle the node was given."""
    async with running(tmp_path) as server:
        admitted = await join(server)
        async with as_node(server.address, admitted) as channel, following(channel) as stream:
            first = await until(stream, wire.decode_followed, lambda _: True)
            assert isinstance(first, wire.Update)
            of = attestation("unix:uid:7", counter=first.live_counter + 1)
            live = LiveSet(counter=of.counter, instances=frozenset({of.instance}))
            await stream.send_message(wire.encode_live(live))
            resolved = await ask(channel, wire.RESOLVE, wire.encode_resolve([of]), pb.ResolveResponse)
            (told,), version = wire.decode_entitlements(resolved)
            assert version == first.rules_version
            assert [str(one.id) for one in told.identities] == ["spiffe://example.org/agent"]
            signed = await ask(channel, wire.SIGN, wire.encode_sign([wants("/agent", of)]), pb.SignResponse)
            (result,) = wire.decode_signed(signed)
            assert isinstance(result, wire.Signed)
            bundle = Bundle.from_jwks(first.bundles[0].trust_domain, first.bundles[0].document)
            peer = verify(der.split(result.chain, "chain", 8), BundleSet.of(bundle), SystemClock().now())
            assert (str(peer.id), peer.instance) == ("spiffe://example.org/agent", of.instance)
            jwt = wire.JwtItem(attestation=of, id=peer.id, audience=("orders",))
            token = await ask(channel, wire.SIGN_JWT, wire.encode_sign_jwt(jwt), pb.SignJwtResponse)
            assert token.token.count(".") == 2


async def test_changed_rules_are_pushed(tmp_path: Path) -> None:
    """The node hears of another version on the stream it holds, without asking."""
    async with running(tmp_path) as server, held(server) as (channel, stream):
        hear = Hearing()
        first = await until(stream, hear, lambda _: True)
        (tmp_path / "rules.yaml").write_text(RULE.replace("/agent", "/other"))
        pushed = await until(stream, hear, lambda step: isinstance(step, wire.Update))
        assert isinstance(first, wire.Update)
        assert pushed.rules_version != first.rules_version
        refused = await ask(
            channel, wire.SIGN, wire.encode_sign([wants("/agent", attestation("unix:uid:7"))]), pb.SignResponse
        )
        assert isinstance(wire.decode_signed(refused)[0], wire.Refusal)


async def test_a_quiet_stream_beats(tmp_path: Path) -> None:
    """With the counter of the newest live set."""
    async with running(tmp_path) as server, held(server) as (_, stream):
        await stream.send_message(wire.encode_live(LiveSet(counter=3, instances=frozenset())))
        beat = await until(stream, Hearing(), lambda step: isinstance(step, wire.Beat) and step.live_counter == 3)
        assert beat == wire.Beat(live_counter=3)


async def test_a_broker_hears_of_ends(tmp_path: Path) -> None:
    """Bound, then missing from a live set: the stream says ended. Nobody but the broker may hold it."""
    async with running(tmp_path) as server:
        admitted = await join(server)
        async with as_node(server.address, admitted) as channel, following(channel) as stream:
            broker, agent = attestation("unix:self:true"), attestation("unix:uid:7")
            both = LiveSet(counter=1, instances=frozenset({broker.instance, agent.instance}))
            await stream.send_message(wire.encode_live(both))
            items = [wants("/sojourn/broker", broker, OWN_SPKI), wants("/agent", agent, OWN_SPKI)]
            signed = wire.decode_signed(await ask(channel, wire.SIGN, wire.encode_sign(items), pb.SignResponse))
            shown = [
                material(one.chain, admitted.bundle.document, admitted.bundle.trust_domain)
                for one in signed
                if isinstance(one, wire.Signed)
            ]
            async with connected(server.address, shown[0], lambda _: "server") as link, watching(link) as watch:
                bound = await ask(link, task.BIND, task.encode_bind(agent.instance), task_pb2.BindResponse)
                assert task.decode_bound(bound).state is State.LIVE
                await watch.send_message(task.encode_watch([agent.instance, new_id()]), end=True)
                snapshot = await until(watch, task.decode_watched, lambda _: True)
                assert isinstance(snapshot, task.Snapshot)
                assert [one.state for one in snapshot.changes] == [State.UNKNOWN]
                only_broker = LiveSet(counter=2, instances=frozenset({broker.instance}))
                await stream.send_message(wire.encode_live(only_broker))
                change = await until(watch, task.decode_watched, lambda one: isinstance(one, task.InstanceChange))
                assert (change.instance, change.state) == (agent.instance, State.ENDED)
            async with connected(server.address, shown[1], lambda _: "server") as link:
                with pytest.raises(GRPCError) as refused:
                    await ask(link, task.BIND, task.encode_bind(agent.instance), task_pb2.BindResponse)
                assert refused.value.status is Status.PERMISSION_DENIED


async def ban_while_following(server: Server, channel: Channel) -> None:
    """Ban the node once its stream is held, and hear the stream to its end."""
    async with following(channel) as stream:
        hear = Hearing()
        await until(stream, hear, lambda _: True)
        assert (await admin(server, "POST", "/v1/nodes/n/ban"))[0] == 200
        await until(stream, hear, lambda _: False)


async def test_a_banned_node_is_cut_off_in_the_middle_of_its_stream(tmp_path: Path) -> None:
    """And refused on every call over the connection it has."""
    async with running(tmp_path) as server, as_node(server.address, await join(server)) as channel:
        with pytest.raises(GRPCError) as ended:
            await ban_while_following(server, channel)
        assert ended.value.status is Status.PERMISSION_DENIED
        for path, request, reply in (
            (wire.RENEW, pb.RenewRequest(csr=b"x"), pb.Admission),
            (wire.RESOLVE, wire.encode_resolve([attestation("unix:uid:7")]), pb.ResolveResponse),
            (wire.SIGN, wire.encode_sign([wants("/agent", attestation("unix:uid:7"))]), pb.SignResponse),
        ):
            with pytest.raises(GRPCError) as refused:
                await ask(channel, path, request, reply)
            assert refused.value.status is Status.PERMISSION_DENIED


async def test_without_a_certificate_only_attestation_answers(tmp_path: Path) -> None:
    """Every other call says who must be proven."""
    async with (
        running(tmp_path) as server,
        connected(server.address, None, pinned(server.root_key_hash)) as channel,
    ):
        sign = wire.encode_sign([wants("/agent", attestation("unix:uid:7"))])
        for path, request, reply in (
            (wire.SIGN, sign, pb.SignResponse),
            (task.BIND, task.encode_bind(new_id()), task_pb2.BindResponse),
        ):
            with pytest.raises(GRPCError) as refused:
                await ask(channel, path, request, reply)
            assert refused.value.status is Status.UNAUTHENTICATED


async def test_a_foreign_authority_gets_no_handshake(tmp_path: Path) -> None:
    """A node certificate of the same name under another root proves nothing."""
    (tmp_path / "other").mkdir()
    async with running(tmp_path) as server, running(tmp_path / "other") as foreign:
        admitted = await join(foreign)
        async with as_node(server.address, admitted) as channel:
            with pytest.raises((GRPCError, StreamTerminatedError, OSError)):
                await ask(channel, wire.RENEW, pb.RenewRequest(csr=b"x"), pb.Admission)


async def test_what_operators_can_do(tmp_path: Path) -> None:
    """Tokens, nodes, rules, explain, bundle, authorities, instances."""
    async with running(tmp_path) as server:
        status, token = await admin(server, "POST", "/v1/tokens", {"node": "n"})
        assert (status, token["node"], token["token"][:4]) == (200, "n", "sj1.")
        admitted = await join(server)
        _, listed = await admin(server, "GET", "/v1/nodes")
        assert [(one["id"], one["state"], one["observed"]) for one in listed["nodes"]] == [("n", "admitted", True)]
        question = {"node": "n", "selectors": ["unix:uid:8"]}
        _, explained = await admin(server, "POST", "/v1/rules/explain", question)
        assert {one["rule"]: one["reason"] for one in explained["unmatched"]} == {
            "agent": "the process does not have unix:uid:7",
            "sojourn-broker": "the process does not have unix:self:true",
        }
        (tmp_path / "rules.yaml").write_text("rules: 5")
        _, rules = await admin(server, "POST", "/v1/rules/reload")
        assert [one["name"] for one in rules["rules"]] == ["sojourn-broker", "agent"]
        assert "expected a list" in rules["trouble"][0]
        _, bundle = await admin(server, "GET", "/v1/bundle")
        assert bundle["root_key_hash"] == server.root_key_hash
        _, authorities = await admin(server, "GET", "/v1/authorities")
        assert {one["kind"] for one in authorities["authorities"]} == {"root", "issuing", "jwt", "wit"}
        assert (await admin(server, "GET", "/v1/instances"))[1] == {"instances": [], "next": None}
        assert (await admin(server, "POST", "/v1/nodes/stranger/evict"))[0] == 404
        assert (await admin(server, "POST", "/v1/tokens", {"name": "n"}))[0] == 400
        assert str(admitted.id) == "spiffe://example.org/sojourn/node/n"


async def test_the_bundle_is_published_where_settings_say_so(tmp_path: Path) -> None:
    """Over TLS with the server's own SVID."""
    async with running(tmp_path, public=Listen()) as server:
        assert server.public_address is not None
        host, port = server.public_address
        async with aiohttp.ClientSession() as session:
            from ca.tls import client_context

            context = client_context(None, pinned(server.root_key_hash), on_refusal=lambda _: None)
            async with session.get(f"https://{host}:{port}/bundle", ssl=context) as response:
                published = Bundle.from_jwks(TrustDomain.parse("example.org"), await response.read())
        assert len(published.x509_authorities) == 1


@pytest.mark.parametrize("rules", ["rules: [", RULE.replace("/agent", "/task/1"), "rules: [{name: a}]"])
async def test_a_server_does_not_start_with_bad_rules(tmp_path: Path, rules: str) -> None:
    """Every fault is told with its file and line."""
    with pytest.raises(BadSettings, match=r"rules\.yaml:"):
        async with running(tmp_path, rules):
            pass


async def test_with_keys_on_disk_a_restart_changes_nothing_for_nodes(tmp_path: Path) -> None:
    """The same root, and a certificate from before still opens the door."""
    (tmp_path / "seal").write_text(secrets.token_hex(32))
    (tmp_path / "seal").chmod(0o600)
    keys = Keys(store="disk", folder=tmp_path / "keys", seal=Reference("file", str(tmp_path / "seal")))
    async with running(tmp_path, keys=keys) as server:
        admitted, before = await join(server), server.root_key_hash
    async with running(tmp_path, keys=keys) as server, as_node(server.address, admitted) as channel:
        assert server.root_key_hash == before
        renewed = await ask(channel, wire.RENEW, pb.RenewRequest(csr=csr(KEY)), pb.Admission)
        assert wire.decode_admission(renewed).id == admitted.id


async def test_a_server_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its nodes are known after a restart; with keys in memory the root is another one."""
    async with running(tmp_path) as server:
        await join(server)
    async with running(tmp_path) as server:
        _, listed = await admin(server, "GET", "/v1/nodes")
        assert [one["id"] for one in listed["nodes"]] == ["n"]
