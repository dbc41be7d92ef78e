"""A client that knows nothing but server reflection finds the Workload API, builds its messages, and calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestor._proto import reflection_pb2 as pb
from attestor.node_agent.workload_api import Profiles
from attestor.wire import reflection as wire
from attestor.wire.workload import SECURITY_HEADER
from ca.spiffe import der
from fakes.workload import Agent, workload_api

HEADERS = [SECURITY_HEADER]
Asked = pb.ServerReflectionRequest


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent that listens."""
    async with workload_api(tmp_path) as one:
        yield one


async def ask(
    agent: Agent, *asked: Asked, path: str = wire.INFO, headers: Sequence[tuple[str, str]] = tuple(HEADERS)
) -> list[pb.ServerReflectionResponse]:
    """All of them on one stream."""
    async with Channel(path=str(agent.path)) as channel:
        method = StreamStreamMethod(channel, path, Asked, pb.ServerReflectionResponse)
        return await method(list(asked), metadata=list(headers))


def names(answer: pb.ServerReflectionResponse) -> list[str]:
    """Of the services."""
    return [one.name for one in answer.list_services_response.service]


@pytest.mark.clause("EP-16")
async def test_a_client_without_stubs_fetches_its_svid(agent: Agent) -> None:
    """EP-16: the described messages, under the standard's names and without a package, are those of the wire."""
    (answer,) = await ask(agent, Asked(file_containing_symbol="SpiffeWorkloadAPI"))
    pool = descriptor_pool.DescriptorPool()
    files = [FileDescriptorProto.FromString(one) for one in answer.file_descriptor_response.file_descriptor_proto]
    for file in reversed(files):  # what a file needs comes behind it
        pool.Add(file)
    method = pool.FindServiceByName("SpiffeWorkloadAPI").methods_by_name["FetchX509SVID"]
    request: Any = message_factory.GetMessageClass(method.input_type)
    reply: Any = message_factory.GetMessageClass(method.output_type)
    assert (request.DESCRIPTOR.full_name, reply.DESCRIPTOR.full_name) == ("X509SVIDRequest", "X509SVIDResponse")
    async with (
        Channel(path=str(agent.path)) as channel,
        UnaryStreamMethod(channel, "/SpiffeWorkloadAPI/FetchX509SVID", request, reply).open(metadata=HEADERS) as stream,
    ):
        await stream.send_message(request(), end=True)
        message: Any = await stream.recv_message()
        await stream.cancel()
    assert message.svids[0].spiffe_id == "spiffe://example.org/agent"
    assert der.split(message.svids[0].x509_svid, "a chain", 8)


async def test_every_service_of_the_socket_is_listed(agent: Agent) -> None:
    """Those of others by name alone; under the former name of reflection too."""
    for path in (wire.INFO, wire.FORMER_INFO):
        (answer,) = await ask(agent, Asked(host="h", list_services="*"), path=path)
        assert answer.valid_host == "h"
        assert answer.original_request.list_services == "*"
        assert {"SpiffeWorkloadAPI", wire.SERVICE, wire.FORMER} <= set(names(answer))


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Asked(file_by_filename="workload.proto"), "workload.proto"),
        (Asked(file_containing_symbol="SpiffeWorkloadAPI.FetchJWTSVID"), "workload.proto"),
        (Asked(file_containing_symbol="X509SVIDResponse.FederatedBundlesEntry"), "workload.proto"),
        (Asked(file_by_filename="google/protobuf/struct.proto"), "google/protobuf/struct.proto"),
        (Asked(file_containing_symbol=wire.SERVICE), "grpc/reflection/v1/reflection.proto"),
        (
            Asked(file_containing_symbol=f"{wire.FORMER}.ServerReflectionInfo"),
            "grpc/reflection/v1alpha/reflection.proto",
        ),
    ],
)
async def test_files_are_found_by_name_and_symbol(agent: Agent, asked: Asked, name: str) -> None:
    """The file first, then what it needs; nothing in it bears a name of ours."""
    (answer,) = await ask(agent, asked)
    first = answer.file_descriptor_response.file_descriptor_proto[0]
    assert FileDescriptorProto.FromString(first).name == name
    assert b"sojourn" not in first


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked(file_by_filename="../../etc/passwd"), Status.NOT_FOUND),
        (Asked(file_containing_symbol="sojourn.workload.v1.X509SVID"), Status.NOT_FOUND),
        (Asked(file_containing_extension=pb.ExtensionRequest(containing_type="X509SVID")), Status.NOT_FOUND),
        (Asked(all_extension_numbers_of_type="X509SVID"), Status.NOT_FOUND),
        (Asked(), Status.INVALID_ARGUMENT),
    ],
)
async def test_what_is_not_there_is_one_answer_s_error(agent: Agent, asked: Asked, code: Status) -> None:
    """The stream goes on with the next question."""
    first, second = await ask(agent, asked, Asked(list_services=""))
    assert first.error_response.error_code == code.value
    assert names(second)


async def test_a_profile_that_is_off_is_not_described(tmp_path: Path) -> None:
    """What is described can be called."""
    async with workload_api(tmp_path, profiles=Profiles(wit=False)) as agent:
        on, off = await ask(
            agent,
            Asked(file_containing_symbol="SpiffeWorkloadAPI.FetchJWTSVID"),
            Asked(file_containing_symbol="SpiffeWorkloadAPI.FetchWITSVID"),
        )
    assert on.HasField("file_descriptor_response")
    assert off.HasField("error_response")


@pytest.mark.clause("EP-4")
async def test_reflection_wants_the_header_and_no_identity(agent: Agent) -> None:
    """EP-4: on every request; what it tells is public."""
    agent.issuer.given = lambda _: ()
    assert names((await ask(agent, Asked(list_services="")))[0])
    with pytest.raises(GRPCError) as refused:
        await ask(agent, Asked(list_services=""), headers=())
    assert refused.value.status is Status.INVALID_ARGUMENT
    with pytest.raises(GRPCError) as refused:
        await ask(agent, Asked(host="x" * 5000))
    assert refused.value.status is Status.RESOURCE_EXHAUSTED
