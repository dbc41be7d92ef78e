"""gRPC listeners: who is accepted, over which wire, and how it all ends."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.client import UnaryStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ca.errors import Denied
from ca.runtime import grpc
from ca.runtime.grpc import Connection, Options
from ca.runtime.metrics import Metrics
from ca.runtime.unix_socket import AlreadyRunning, credentials
from fakes.grpc_service import Service, unary


@pytest.fixture
def service() -> Service:
    """Fresh for each test."""
    return Service()


async def test_a_connection_is_judged_when_it_is_accepted_and_let_go_of_when_it_ends(
    service: Service, tmp_path: Path
) -> None:
    """Once per connection, not per call; whoever leaves is released."""
    accepted: list[int] = []
    released: list[str] = []
    gone = asyncio.Event()

    def accept(connection: Connection) -> str:
        accepted.append(credentials(connection.socket).uid)
        return f"visitor {len(accepted)}"

    def release(identity: str) -> None:
        released.append(identity)
        gone.set()

    options = Options(accept=accept, release=release)
    async with grpc.listen_unix(service.methods(), tmp_path / "s", options=options) as path:
        async with grpc.connect_unix(path) as channel:
            await unary(channel, "Echo")(StringValue())
            await unary(channel, "Echo")(StringValue())
        async with asyncio.timeout(60):
            await gone.wait()
        async with grpc.connect_unix(path) as channel:
            await unary(channel, "Echo")(StringValue())
    assert accepted == [os.getuid()] * 2
    assert [identity for _, identity, *_ in service.seen] == ["visitor 1", "visitor 1", "visitor 2"]
    assert released == ["visitor 1", "visitor 2"]


@pytest.mark.parametrize("error", [Denied("not you"), RuntimeError("broken")])
async def test_a_connection_that_is_refused_gets_not_a_byte(service: Service, tmp_path: Path, error: Exception) -> None:
    """Nor one that can't be judged."""

    def accept(_: Connection) -> object:
        raise error

    async with grpc.listen_unix(service.methods(), tmp_path / "s", options=Options(accept=accept)) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            content = await reader.read()
        except ConnectionError:
            content = b""
        writer.close()
        assert content == b""
        assert service.seen == []


async def test_leaving_lets_unary_calls_finish_and_tells_streams(service: Service, tmp_path: Path) -> None:
    """Running calls are answered, streams end with UNAVAILABLE, nobody new gets in."""
    metrics = Metrics()
    path, told = tmp_path / "s", asyncio.Event()
    ending = asyncio.Event()

    async def serve(ready: asyncio.Event) -> None:
        async with grpc.listen_unix(service.methods(), path, options=Options(metrics=metrics)):
            ready.set()
            await ending.wait()

    async def follow() -> Status:
        async with grpc.connect_unix(path) as channel:
            method = UnaryStreamMethod(channel, "/t.T/Follow", StringValue, StringValue)
            with pytest.raises(GRPCError) as caught:  # noqa: PT012 - heard when the stream is left
                async with method.open() as stream:
                    await stream.send_message(StringValue(), end=True)
                    assert (await stream.recv_message()) == StringValue(value="first")
                    told.set()
                    await stream.recv_message()
        return caught.value.status

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        serving = group.create_task(serve(ready))
        await ready.wait()
        async with grpc.connect_unix(path) as channel:
            held = group.create_task(unary(channel, "Hold")(StringValue()))
            followed = group.create_task(follow())
            await service.held.wait()
            await told.wait()
            assert metrics.value("sojourn_grpc_streams") == 1
            ending.set()
            while path.exists() and not serving.done():
                try:
                    _, writer = await asyncio.open_unix_connection(path)
                except ConnectionError:
                    break
                writer.close()
            service.hold.set()
            assert (await held).value == "done"
            assert await followed is Status.UNAVAILABLE
            await serving
    assert not path.exists()
    assert metrics.value("sojourn_grpc_calls_total", code="OK") == 1
    assert metrics.value("sojourn_grpc_calls_total", code="UNAVAILABLE") == 1
    assert metrics.value("sojourn_grpc_streams") == 0


async def test_a_caller_that_leaves_ends_its_call(service: Service, tmp_path: Path) -> None:
    """By going or by its deadline; its handler is cancelled and the listener can end."""
    async with (
        asyncio.timeout(60),
        grpc.listen_unix(service.methods(), tmp_path / "s") as path,
        grpc.connect_unix(path) as channel,
    ):
        method = UnaryStreamMethod(channel, "/t.T/Follow", StringValue, StringValue)
        async with method.open() as stream:
            await stream.send_message(StringValue(), end=True)
            await stream.recv_message()
            await stream.cancel()
        with pytest.raises((TimeoutError, GRPCError)):
            await unary(channel, "Hold")(StringValue(), timeout=0.01)


def throwaway() -> tuple[bytes, bytes]:
    """A certificate for localhost and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


async def test_over_tls_a_call_knows_its_handshake(service: Service, tmp_path: Path) -> None:
    """The identity is attached after the handshake, from the SSL object, and ALPN is h2."""
    certificate, key = throwaway()
    (tmp_path / "pem").write_bytes(certificate + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "pem")
    server.set_alpn_protocols(["h2"])
    client = ssl.create_default_context(cadata=certificate.decode())
    client.set_alpn_protocols(["h2"])

    def accept(connection: Connection) -> tuple[str | None, str | None]:
        assert connection.ssl_object is not None
        return connection.ssl_object.version(), connection.ssl_object.selected_alpn_protocol()

    options = Options(accept=accept)
    async with (
        grpc.listen_tls(service.methods(), host="localhost", port=0, ssl=server, options=options) as (_, port),
        grpc.connect_tls("localhost", port, client) as channel,
    ):
        await unary(channel, "Echo")(StringValue(value="x"))
    _, identity, _, _, peer = service.seen[0]
    assert identity == ("TLSv1.3", "h2")
    assert peer.partition(":")[0] in {"127.0.0.1", "::1"}


async def test_a_second_listener_at_one_path_is_refused(service: Service, tmp_path: Path) -> None:
    """With a sentence; the first goes on."""
    async with grpc.listen_unix(service.methods(), tmp_path / "s") as path, grpc.connect_unix(path) as channel:
        with pytest.raises(AlreadyRunning, match="already running"):
            async with grpc.listen_unix(service.methods(), path):
                pass
        await unary(channel, "Echo")(StringValue())
