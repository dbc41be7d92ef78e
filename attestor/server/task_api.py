"""gRPC for a broker: an instance opened a task; what became of the instances of tasks; the identities of tasks."""

from __future__ import annotations

from dataclasses import dataclass

from attestor._proto import task_pb2 as pb
from attestor.instance import State
from attestor.server.changes import Changes
from attestor.server.instances import Instances
from attestor.server.task_identity import TaskIdentities
from attestor.wire import task as wire
from attestor.wire import task_identity as identity
from ca.errors import Denied, Stale, Unauthenticated
from ca.runtime import grpc
from ca.runtime.clock import Clock
from ca.runtime.grpc import GrpcCall, Method
from ca.spiffe.id import TrustDomain
from ca.spiffe.x509svid import X509Peer
from ca.tls import peer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskApi:
    """One for each server process."""

    trust_domain: TrustDomain
    instances: Instances
    identities: TaskIdentities
    changes: Changes
    clock: Clock

    def methods(self) -> tuple[Method, ...]:
        """All of them, by path."""
        return (
            grpc.unary(wire.BIND, self.bind, pb.BindRequest, pb.BindResponse),
            grpc.server_stream(wire.WATCH, self.watch, pb.WatchRequest, pb.WatchResponse),
            grpc.unary(identity.GRANT, self.grant, pb.GrantRequest, pb.GrantResponse),
            grpc.unary(identity.WITHDRAW, self.withdraw, pb.WithdrawRequest, pb.WithdrawResponse),
            grpc.unary(identity.LIST, self.list, pb.ListRequest, pb.ListResponse),
            grpc.unary(identity.CONFIRM, self.confirm, pb.ConfirmRequest, pb.ConfirmResponse),
        )

    async def bind(self, call: GrpcCall) -> pb.BindResponse:
        """From now on its end is the task's end."""
        await self._is_broker(call)
        return wire.encode_bound(await self.instances.bind(wire.decode_bind(await call.recv())))

    async def grant(self, call: GrpcCall) -> pb.GrantResponse:
        """The identity of a task, for one instance."""
        await self._is_broker(call)
        grant = identity.decode_grant(await call.recv())
        return identity.encode_granted(await self.identities.grant(grant, self.clock.now()))

    async def withdraw(self, call: GrpcCall) -> pb.WithdrawResponse:
        """Its end, or the certainty that it never begins."""
        await self._is_broker(call)
        asked = identity.decode_withdrawal(await call.recv())
        return pb.WithdrawResponse(leaves=await self.identities.withdraw(asked, self.clock.now()))

    async def list(self, call: GrpcCall) -> pb.ListResponse:
        """A page of names."""
        await self._is_broker(call)
        prefix, after = identity.decode_list(await call.recv())
        return pb.ListResponse(names=await self.identities.names(prefix, after))

    async def confirm(self, call: GrpcCall) -> pb.ConfirmResponse:
        """These tasks live."""
        await self._is_broker(call)
        names = identity.decode_names(await call.recv())
        return pb.ConfirmResponse(unknown=await self.identities.confirm(names, self.clock.now()))

    async def watch(self, call: GrpcCall) -> None:
        """A snapshot, then every change of every instance in order, then beats; until the broker leaves.

        All changes are sent, not only those of the instances asked for: so numbers are dense and a broker sees a gap.
        """
        await self._is_broker(call)
        asked = wire.decode_watch(await call.recv())
        with self.changes.following() as wake:
            snapshot = await self.instances.snapshot(asked)
            await call.send(wire.encode_watched(snapshot))
            cursor = snapshot.cursor
            while True:
                await wake.wait()
                await self._is_broker(call)
                cursor = await self._tell(call, cursor)
                await call.send(wire.encode_watched(wire.Beat(cursor=cursor)))

    async def _tell(self, call: GrpcCall, cursor: int) -> int:
        while changes := await self.instances.since(cursor):
            for change in changes:
                if change.cursor != cursor + 1:
                    raise Stale("changes this stream has not seen are no longer kept: begin it anew")
                await call.send(wire.encode_watched(change))
                cursor = change.cursor
        return cursor

    async def _is_broker(self, call: GrpcCall) -> None:
        """Asked again before each message: an open connection outlives neither its leaf nor its instance."""
        peer, now = peer_of(call.ssl_object), self.clock.now()
        if not isinstance(peer, X509Peer):
            raise Unauthenticated("this call needs the broker's own certificate")
        if peer.id != self.trust_domain.member(wire.BROKER_PATH):
            raise Denied(f"`{peer.id}` is not the broker of this trust domain")
        if now >= peer.not_after:
            raise Unauthenticated("the broker's certificate has expired since the connection was opened")
        state = await self.instances.state_of(peer)
        if state not in {State.LIVE, State.UNOBSERVED}:
            raise Denied(f"the broker's own instance is {state}")
