"""Secret discovery over a real socket: names, pushes, acknowledgements, refusals."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from attestor._proto import secrets_pb2 as pb
from attestor.node_agent.sds import Naming
from attestor.wire import sds as wire
from attestor.wire.node import Refusal
from ca.errors import Malformed
from ca.spiffe.bundle import BundleSet
from fakes.issuer import identity
from fakes.pki import TestAuthority
from fakes.revocations import make_list
from fakes.sds_client import SdsStream, fetch, sds_stream
from fakes.workload import Agent, workload_api

OWN, PARTNER = "spiffe://example.org", "spiffe://partner.test"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent whose callers are `/a` and `/b` and federate with one other domain."""
    async with workload_api(tmp_path) as one:
        furnish(one)
        yield one


@pytest.fixture
async def envoy(agent: Agent) -> AsyncIterator[SdsStream]:
    """One stream."""
    async with sds_stream(agent.path) as one:
        yield one


def furnish(agent: Agent) -> None:
    """Two identities, and bundles of three domains."""
    authority, now = agent.issuer.authority, agent.clock.now()
    given = tuple(replace(identity(authority.id(path)), federates_with=("partner.test",)) for path in ("/a", "/b"))
    agent.issuer.given = lambda _: given
    others = [TestAuthority(name, now=now).bundle() for name in ("partner.test", "stranger.test")]
    agent.issuer.bundles = BundleSet.of(authority.bundle(), *others)


def leaf(secret: pb.Secret) -> x509.Certificate:
    """The certificate of a secret, whose key must be its own."""
    content = secret.tls_certificate
    certificate = x509.load_pem_x509_certificates(content.certificate_chain.inline_bytes)[0]
    key = serialization.load_pem_private_key(content.private_key.inline_bytes, None)
    assert key.public_key() == certificate.public_key()
    return certificate


def path_of(secret: pb.Secret) -> str:
    """Whose certificate it is."""
    names = leaf(secret).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0]).removeprefix(OWN)


def domains(secret: pb.Secret) -> list[str]:
    """The trust domains of a validation context."""
    extension = secret.validation_context.custom_validator_config
    assert (extension.name, extension.typed_config.type_url) == (wire.VALIDATOR, wire.VALIDATOR_TYPE)
    listed = pb.SPIFFECertValidatorConfig.FromString(extension.typed_config.value).trust_domains
    assert all(x509.load_pem_x509_certificates(one.trust_bundle.inline_bytes) for one in listed)
    return [one.name for one in listed]


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What the log holds, fields included."""
    return str([record.__dict__.get("sojourn_fields") for record in caplog.records])


async def refusal(stream: SdsStream) -> tuple[Status, str]:
    """How the stream ends."""
    with pytest.raises(GRPCError) as caught:
        async with asyncio.timeout(60):
            await stream.hear()
    return caught.value.status, caught.value.message or ""


async def status(agent: Agent, path: str, shape: Cardinality, request: pb.DiscoveryRequest) -> Status:
    """How one raw call ends."""
    async with Channel(path=str(agent.path)) as channel:
        try:
            async with channel.request(path, shape, pb.DiscoveryRequest, pb.DiscoveryResponse) as stream:
                await stream.send_message(request, end=True)
                await stream.recv_message()
                await stream.recv_trailing_metadata()
        except GRPCError as error:
            return error.status
    return Status.OK


async def test_every_name_has_its_secret(envoy: SdsStream) -> None:
    """Several in one request; a domain it does not federate with is nobody's."""
    await envoy.ask("default", f"{OWN}/b", "ROOTCA", "ALL", PARTNER, OWN)
    found = await envoy.hear()
    assert (path_of(found["default"]), path_of(found[f"{OWN}/b"])) == ("/a", "/b")
    assert domains(found["ROOTCA"]) == domains(found[OWN]) == ["example.org"]
    assert domains(found["ALL"]) == ["example.org", "partner.test"]
    assert domains(found[PARTNER]) == ["partner.test"]


async def test_without_names_the_first_request_is_for_everything(agent: Agent, envoy: SdsStream) -> None:
    """And a later one for nothing: the xDS rule."""
    await envoy.ask()
    everything = {f"{OWN}/a", f"{OWN}/b", OWN, PARTNER}
    assert (await envoy.hear()).keys() == everything == (await fetch(agent.path)).keys()
    await envoy.ask("default")
    assert (await envoy.hear()).keys() == {"default"}
    await envoy.ask()
    await envoy.ask("ROOTCA")
    assert (await envoy.hear()).keys() == {"ROOTCA"}


async def test_a_rotation_is_pushed_with_a_version_and_nonce_of_its_own(agent: Agent, envoy: SdsStream) -> None:
    """Only what changed wakes a stream: the one that asked for authorities hears nothing."""
    async with sds_stream(agent.path) as other:
        await other.ask("ROOTCA")
        await other.hear()
        await envoy.ask("default")
        first, said = (await envoy.hear())["default"], envoy.last
        await envoy.ask("default")
        await agent.clock.advance(31 * 60)
        await agent.tick()
        second = (await envoy.hear())["default"]
        assert leaf(second).not_valid_before_utc > leaf(first).not_valid_before_utc
        assert said
        assert envoy.last
        assert (said.nonce, said.version) != (envoy.last.nonce, envoy.last.version)
        fresh = TestAuthority(now=agent.clock.now())
        agent.issuer.bundles = BundleSet.of(fresh.bundle())
        agent.holdings.announce()
        (changed,) = (await other.hear()).values()
        assert domains(changed) == ["example.org"]
        assert int(other.last.version) == int(envoy.last.version) + 1  # type: ignore[union-attr]  # none in between


async def test_a_refused_response_is_logged_and_not_sent_again(
    agent: Agent, envoy: SdsStream, caplog: pytest.LogCaptureFixture
) -> None:
    """NACK: in Envoy's words, on one line; the stream goes on, and what comes next is another version."""
    await envoy.ask("default")
    await envoy.hear()
    with caplog.at_level(logging.WARNING):
        await envoy.ask("default", refused="no good\nfatal: forged line")
        await agent.clock.until(lambda: "no good" in logged(caplog))
    assert "\n" not in caplog.records[-1].__dict__["sojourn_fields"]["reason"]
    for _ in range(3):
        agent.holdings.announce()
        await agent.clock.settle()
    await agent.clock.advance(31 * 60)
    await agent.tick()
    assert leaf((await envoy.hear())["default"]).not_valid_before_utc.minute == 30


async def test_a_caller_that_only_listens_is_served_on(agent: Agent, envoy: SdsStream) -> None:
    """It has closed its half: rotation is pushed all the same."""
    await envoy.ask("default")
    await envoy.stream.end()
    await envoy.hear()
    await agent.clock.advance(31 * 60)
    await agent.tick()
    assert leaf((await envoy.hear())["default"]).not_valid_before_utc.minute == 30


async def test_a_stale_answer_is_passed_over(envoy: SdsStream) -> None:
    """Its names are those of before: the answer to the newest response says what is wanted."""
    await envoy.ask("default")
    await envoy.hear()
    await envoy.ask("ROOTCA", nonce="ffffffffffffffff")
    await envoy.ask(f"{OWN}/b")
    assert (await envoy.hear()).keys() == {f"{OWN}/b"}


async def test_unknown_names(envoy: SdsStream, agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    """Beside others they are left out and logged; alone they end the stream, with the reason."""
    with caplog.at_level(logging.WARNING):
        await envoy.ask("default", "spiffe://example.org/else", "spiffe://stranger.test", "nothing")
        assert (await envoy.hear()).keys() == {"default"}
    assert "spiffe://example.org/else" in logged(caplog)
    async with sds_stream(agent.path) as other:
        await other.ask("spiffe://stranger.test")
        code, message = await refusal(other)
        assert code is Status.PERMISSION_DENIED
        assert "spiffe://stranger.test" in message
    await envoy.ask("ROOTCA")  # nobody else's stream was harmed
    assert (await envoy.hear()).keys() == {"ROOTCA"}


async def test_a_withdrawn_identity_ends_the_stream(agent: Agent, envoy: SdsStream) -> None:
    """As on the Workload API."""
    await envoy.ask("default")
    await envoy.hear()
    agent.issuer.given, agent.issuer.rules_version = (lambda _: ()), "2"
    await agent.tick()
    assert (await refusal(envoy))[0] is Status.PERMISSION_DENIED


async def test_a_process_without_identity_gets_nothing(agent: Agent, envoy: SdsStream) -> None:
    """Attested like every other caller; and nothing before the server has spoken."""
    agent.issuer.given = lambda _: ()
    await envoy.ask("ROOTCA")
    assert (await refusal(envoy))[0] is Status.PERMISSION_DENIED
    agent.issuer.initialised = False
    async with sds_stream(agent.path) as other:
        await other.ask("ROOTCA")
        assert (await refusal(other))[0] is Status.UNAVAILABLE


async def test_over_the_limit_of_connections(tmp_path: Path) -> None:
    """The same as on the Workload API: Unavailable, and the held streams live."""
    async with workload_api(tmp_path, connections=2) as agent, sds_stream(agent.path) as held:
        await held.ask("default")
        await held.hear()
        async with sds_stream(agent.path) as other:
            await other.ask("default")
            assert (await refusal(other))[0] is Status.UNAVAILABLE
        await agent.clock.advance(31 * 60)
        await agent.tick()
        await held.hear()


async def test_the_default_is_never_another_identity(agent: Agent, envoy: SdsStream) -> None:
    """When the server signs nothing for the first any more, `default` is not there: the second is not it."""
    await envoy.ask(f"{OWN}/b")
    await envoy.hear()
    (held,) = agent.holdings
    del held.leaves[agent.issuer.authority.id("/a")]
    agent.issuer.refusal = Refusal(code="denied", reason="no")
    async with sds_stream(agent.path) as other:
        await other.ask("default")
        assert (await refusal(other))[0] is Status.PERMISSION_DENIED


async def test_plain_authorities_by_setting_or_by_the_nodes_metadata(agent: Agent, tmp_path: Path) -> None:
    """One domain at a time: several in one store would let each sign for the others (T1)."""
    async with sds_stream(agent.path) as plain:
        await plain.ask("ROOTCA", PARTNER, plain=True)
        for secret in (await plain.hear()).values():
            assert x509.load_pem_x509_certificates(secret.validation_context.trusted_ca.inline_bytes)
    async with sds_stream(agent.path) as pooled:
        await pooled.ask("ALL", plain=True)
        assert (await refusal(pooled))[0] is Status.INVALID_ARGUMENT
    (tmp_path / "b").mkdir()
    async with workload_api(tmp_path / "b", naming=Naming(spiffe_validator=False)) as by_setting:
        (secret,) = (await fetch(by_setting.path, "ROOTCA")).values()
        assert secret.validation_context.HasField("trusted_ca")


async def test_revocation_lists_stand_among_the_authorities(tmp_path: Path) -> None:
    """By setting, of our own domain only; without any nothing is sent, for it would let revoked ones in."""
    async with workload_api(tmp_path, naming=Naming(revocation_lists=True)) as agent:
        furnish(agent)
        with pytest.raises(GRPCError) as caught:
            await fetch(agent.path, "ROOTCA")
        assert caught.value.status is Status.UNAVAILABLE
        authority, now = agent.issuer.authority, agent.clock.now()
        of_root = make_list(authority, signer=(authority.root, authority.root_key), now=now)
        agent.issuer.revocation_lists = (make_list(authority, now=now), of_root)
        await agent.tick()
        (secret,) = (await fetch(agent.path, "ALL")).values()
        packed = secret.validation_context.custom_validator_config.typed_config.value
        texts = [one.trust_bundle.inline_bytes for one in pb.SPIFFECertValidatorConfig.FromString(packed).trust_domains]
        assert [text.count(b"BEGIN X509 CRL") for text in texts] == [2, 0]


@pytest.mark.parametrize(
    "request_",
    [
        pb.DiscoveryRequest(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"),
        pb.DiscoveryRequest(resource_names=[""]),
        pb.DiscoveryRequest(resource_names=["a\nb"]),
        pb.DiscoveryRequest(resource_names=["a" * 3000]),
        pb.DiscoveryRequest(resource_names=[str(one) for one in range(200)]),
    ],
    ids=["type", "empty", "line break", "long", "many"],
)
async def test_hostile_requests_are_refused(agent: Agent, request_: Any) -> None:
    """Each with InvalidArgument, on either method."""
    for path, shape in (
        (wire.STREAM_SECRETS, Cardinality.STREAM_STREAM),
        (wire.FETCH_SECRETS, Cardinality.UNARY_UNARY),
    ):
        assert await status(agent, path, shape, request_) is Status.INVALID_ARGUMENT


async def test_a_later_hostile_request_ends_only_its_stream(agent: Agent, envoy: SdsStream) -> None:
    """After an honest one."""
    await envoy.ask("default")
    await envoy.hear()
    await envoy.ask(*(str(one) for one in range(200)))
    assert (await refusal(envoy))[0] is Status.INVALID_ARGUMENT
    assert (await fetch(agent.path, "default")).keys() == {"default"}


async def test_delta_is_not_offered(agent: Agent) -> None:
    """Envoy is configured for the state of the world, its default for SDS."""
    path = f"/{wire.SERVICE}/DeltaSecrets"
    assert await status(agent, path, Cardinality.STREAM_STREAM, pb.DiscoveryRequest()) is Status.UNIMPLEMENTED


INHERITED = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
parent = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == parent:
    pass
import asyncio
sys.path[:0] = sys.argv[2:]
from grpclib.client import Channel
from grpclib.exceptions import GRPCError
from attestor._proto import secrets_pb2 as pb
from grpclib.const import Cardinality
from attestor.wire import sds as wire

class Inherited(Channel):
    async def _create_connection(self):
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_unix_connection(self._protocol_factory, sock=connection)
        return protocol

async def main():
    async with Inherited(path=sys.argv[1]) as channel:
        call = channel.request(wire.FETCH_SECRETS, Cardinality.UNARY_UNARY, pb.DiscoveryRequest, pb.DiscoveryResponse)
        try:
            async with call as stream:
                await stream.send_message(pb.DiscoveryRequest(resource_names=["default"]), end=True)
                await stream.recv_message()
            print("served", flush=True)
        except GRPCError as error:
            print(error.status.name, flush=True)

asyncio.run(main())
"""


async def test_a_child_does_not_speak_for_a_dead_parent(agent: Agent) -> None:
    """The connection is the parent's (T9)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INHERITED, str(agent.path), *sys.path, stdout=-1
    )
    out, _ = await process.communicate()
    assert out.strip() == b"PERMISSION_DENIED"


def test_a_response_of_another_type_is_no_secret() -> None:
    """For the client's side of the wire."""
    with pytest.raises(Malformed):
        wire.decode_response(pb.DiscoveryResponse(type_url="type.googleapis.com/other"))
