"""Server reflection on the Workload API's socket and the Broker API's, as their endpoints should have it (EP-16, BR-6).

It lists every service of the endpoint and describes the standard's one and itself. Who asks needs the security header
like everybody, and no identity: what is told stands in the standard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import FileDescriptor
from grpclib.const import Cardinality

from attestor._proto import reflection_pb2 as pb
from attestor._proto import workload_pb2
from attestor.node_agent.limits import Place
from attestor.wire import reflection as wire
from attestor.wire import workload
from attestor.wire.reflection import Described, Rpc
from ca.errors import Malformed
from ca.runtime import grpc
from ca.runtime.grpc import GrpcCall, Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an endpoint serves: messages as compiled here, the standard's names for them, and the header it demands."""

    source: FileDescriptor
    name: str
    package: str
    service: str
    header: tuple[str, str]


WORKLOAD_API = Subject(
    source=workload_pb2.DESCRIPTOR,
    name="workload.proto",
    package="",
    service=workload.SERVICE,
    header=workload.SECURITY_HEADER,
)


class Reflection:
    """Tells of `methods`, and of its own."""

    def __init__(self, methods: Sequence[Method], subject: Subject = WORKLOAD_API) -> None:
        self._header = subject.header
        rpcs = [_rpc(one) for one in (*methods, *self.methods())]
        files = [wire.described(subject.source, subject.name, subject.package, _of(rpcs, subject.service))]
        for service in (wire.SERVICE, wire.FORMER):
            package = service.rpartition(".")[0]
            name = f"{package.replace('.', '/')}/reflection.proto"
            files.append(wire.described(pb.DESCRIPTOR, name, package, _of(rpcs, service)))
        self._described = Described((one.service for one in rpcs), files)

    def methods(self) -> Sequence[Method]:
        """Under both names, for old tools and new."""
        request, response, limit = pb.ServerReflectionRequest, pb.ServerReflectionResponse, wire.LONGEST_QUESTION
        return [grpc.bidi(path, self._answer, request, response, limit=limit) for path in (wire.INFO, wire.FORMER_INFO)]

    async def _answer(self, call: GrpcCall) -> None:
        if isinstance(call.connection.identity, Place):
            call.connection.identity.check()
        name, value = self._header
        if call.metadata.get(name) != value:
            raise Malformed(f"the header `{name}: {value}` is missing: this is not a client of this endpoint")
        async for asked in call:
            await call.send(self._described.answer(asked))


def _rpc(method: Method) -> Rpc:
    return Rpc(
        method.path,
        method.request,
        method.reply,
        method.cardinality in {Cardinality.STREAM_UNARY, Cardinality.STREAM_STREAM},
        method.cardinality in {Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM},
    )


def _of(rpcs: Sequence[Rpc], service: str) -> Sequence[Rpc]:
    return [one for one in rpcs if one.service == service]
