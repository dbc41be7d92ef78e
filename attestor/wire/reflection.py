"""gRPC server reflection: what services an endpoint has and what their messages look like, in the standard's own names.

Our messages are compiled under packages of our own, so a description is made here from those and from the methods that
are really served: the same fields under the names of the standard. Whoever asks learns nothing that is not public.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf import any_pb2, struct_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import Message
from grpclib.const import Status

from attestor._proto import reflection_pb2 as pb

SERVICE = "grpc.reflection.v1.ServerReflection"
FORMER = "grpc.reflection.v1alpha.ServerReflection"
"""The same under its first name: most tools still fall back on it."""
INFO = f"/{SERVICE}/ServerReflectionInfo"  # bidirectional stream
FORMER_INFO = f"/{FORMER}/ServerReflectionInfo"  # bidirectional stream
LONGEST_QUESTION = 4096


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method as it is served at `path`, `/<service>/<method>`."""

    path: str
    request: type[Message]
    reply: type[Message]
    client_streams: bool
    server_streams: bool

    @property
    def service(self) -> str:
        """The full name of its service."""
        return self.path.split("/")[1]


class Described:
    """Files by name and by the symbols in them, and the services there are."""

    def __init__(self, services: Iterable[str], files: Iterable[FileDescriptorProto]) -> None:
        self.services = sorted(set(services))
        known = (FileDescriptorProto.FromString(one.DESCRIPTOR.serialized_pb) for one in (struct_pb2, any_pb2))
        self._files = {one.name: one for one in (*files, *known)}
        self._symbols = {symbol: one for one in self._files.values() for symbol in _symbols(one)}

    def answer(self, asked: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """What is to be said to `asked`; what isn't there is an error of that answer, not of the stream."""
        response = pb.ServerReflectionResponse(valid_host=asked.host, original_request=asked)
        match asked.WhichOneof("message_request"):
            case "list_services":
                listed = [pb.ServiceResponse(name=name) for name in self.services]
                response.list_services_response.service.extend(listed)
            case "file_by_filename":
                self._tell(response, self._files.get(asked.file_by_filename))
            case "file_containing_symbol":
                self._tell(response, self._symbols.get(asked.file_containing_symbol))
            case "file_containing_extension" | "all_extension_numbers_of_type":
                self._tell(response, None)
            case _:
                response.error_response.error_code = Status.INVALID_ARGUMENT.value
                response.error_response.error_message = "the question is missing"
        return response

    def _tell(self, response: pb.ServerReflectionResponse, found: FileDescriptorProto | None) -> None:
        if found is None:
            response.error_response.error_code = Status.NOT_FOUND.value
            response.error_response.error_message = "there is nothing of this name here"
            return
        needed = (found, *(self._files[name] for name in found.dependency))
        response.file_descriptor_response.file_descriptor_proto.extend(one.SerializeToString() for one in needed)


def described(source: FileDescriptor, name: str, package: str, rpcs: Sequence[Rpc]) -> FileDescriptorProto:
    """The file `source` as the standard calls it, with the services that `rpcs` make up."""
    file = FileDescriptorProto.FromString(source.serialized_pb)
    ours, theirs = f".{file.package}.", f".{package}." if package else "."
    for message in file.message_type:
        _rename(message, ours, theirs)
    file.name, file.package = name, package
    del file.service[:]
    for service in dict.fromkeys(one.service for one in rpcs):
        made = file.service.add(name=service.rpartition(".")[2])
        for rpc in rpcs:
            if rpc.service == service:
                made.method.add(
                    name=rpc.path.rpartition("/")[2],
                    input_type=theirs + rpc.request.DESCRIPTOR.name,
                    output_type=theirs + rpc.reply.DESCRIPTOR.name,
                    client_streaming=rpc.client_streams,
                    server_streaming=rpc.server_streams,
                )
    return file


def _rename(message: DescriptorProto, ours: str, theirs: str) -> None:
    for field in message.field:
        if field.type_name.startswith(ours):
            field.type_name = theirs + field.type_name.removeprefix(ours)
    for nested in message.nested_type:
        _rename(nested, ours, theirs)


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    scope = f"{file.package}." if file.package else ""
    for service in file.service:
        yield scope + service.name
        yield from (f"{scope}{service.name}.{method.name}" for method in service.method)
    for message in file.message_type:
        yield from _in_message(message, scope)
    yield from (scope + enum.name for enum in file.enum_type)


def _in_message(message: DescriptorProto, scope: str) -> Iterator[str]:
    name = scope + message.name
    yield name
    yield from (f"{name}.{field.name}" for field in message.field)
    for nested in message.nested_type:
        yield from _in_message(nested, f"{name}.")
