"""gRPC for node agents: attest, renew, follow, resolve, sign.

The node is read from the client certificate and looked up anew for every call and every message of a stream, so an
eviction, a ban or an expired leaf ends what an open connection could do (traps 35).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from weakref import WeakValueDictionary

from attestor._proto import node_pb2 as pb
from attestor.conversation import LONGEST_MESSAGE
from attestor.errors import BadConversation
from attestor.server.admission import Admission
from attestor.server.changes import Changes
from attestor.server.federation import Federation
from attestor.server.instances import Instances
from attestor.server.issuance.leaves import Leaves
from attestor.server.issuance.workloads import Workloads
from attestor.server.store.nodes import Node
from attestor.wire import node as wire
from ca.errors import Problem
from ca.revocation import Lists
from ca.runtime import grpc
from ca.runtime.clock import Clock
from ca.runtime.grpc import GrpcCall, Method
from ca.runtime.rate import Rate, network_of
from ca.tls import peer_of

ATTEST_WITHIN = 30.0
"""Seconds an unknown caller may take to prove itself."""
BURST, PER_SECOND = 100, 10.0
"""Attestations of one address: many nodes may stand behind one."""
LONGEST_ATTEST = 64 * 1024
"""Bytes of one of its messages: a stranger keeps no more of our memory busy than a proof needs."""


class _Spoken:
    """The conversation of an attestation, carried in the messages of its call."""

    def __init__(self, call: GrpcCall) -> None:
        self._call = call

    async def send(self, message: bytes) -> None:
        """Ask."""
        await self._call.send(pb.AttestResponse(challenge=message))

    async def receive(self) -> bytes:
        """Hear the answer."""
        message: pb.AttestRequest | None = await self._call.recv()
        if message is None or message.WhichOneof("step") != "answer":
            raise BadConversation("the node's next message must be its answer")
        if len(message.answer) > LONGEST_MESSAGE:
            raise BadConversation(f"an answer must not be longer than {LONGEST_MESSAGE} bytes")
        return message.answer


@dataclass(slots=True)
class _Following:
    """What one held stream knows."""

    refused: frozenset[str] = frozenset()
    """Instances in the node's newest live set that may get nothing."""
    told: wire.Update | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeApi:
    """One for each server process."""

    admission: Admission
    workloads: Workloads
    instances: Instances
    leaves: Leaves
    lists: Lists
    federation: Federation
    changes: Changes
    clock: Clock
    beat: timedelta
    strangers: Rate
    """How often one address may try to prove itself: each try may cost a platform a question, or us a write."""
    turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, repr=False)
    """One report or question of a node at a time: however many streams a hostile one opens, the others' are heard."""

    def methods(self) -> tuple[Method, ...]:
        """All of them, by path."""
        return (
            grpc.bidi(wire.ATTEST, self.attest, pb.AttestRequest, pb.AttestResponse, limit=LONGEST_ATTEST),
            grpc.unary(wire.RENEW, self.renew, pb.RenewRequest, pb.Admission),
            grpc.bidi(wire.FOLLOW, self.follow, pb.FollowRequest, pb.FollowResponse),
            grpc.unary(wire.RESOLVE, self.resolve, pb.ResolveRequest, pb.ResolveResponse),
            grpc.unary(wire.SIGN, self.sign, pb.SignRequest, pb.SignResponse),
            grpc.unary(wire.SIGN_JWT, self.sign_jwt, pb.SignJwtRequest, pb.SignJwtResponse),
            grpc.unary(wire.SIGN_WIT, self.sign_wit, pb.SignWitRequest, pb.SignWitResponse),
        )

    async def attest(self, call: GrpcCall) -> pb.AttestResponse:
        """The only call that needs no certificate."""
        self.strangers.take(network_of(call.peer.rpartition(":")[0]))
        try:
            async with asyncio.timeout(ATTEST_WITHIN):
                first: pb.AttestRequest | None = await call.recv()
                if first is None or first.WhichOneof("step") != "begin":
                    raise BadConversation("the node's first message must name its method and bring its request")
                begin, now = first.begin, self.clock.now()
                admitted = await self.admission.attest(begin.method, begin.csr, _Spoken(call), now)
        except TimeoutError as error:
            raise BadConversation(f"the node did not prove itself within {ATTEST_WITHIN:.0f} s") from error
        return pb.AttestResponse(admission=wire.encode_admission(admitted))

    async def renew(self, call: GrpcCall) -> pb.Admission:
        """A new certificate of the same admission."""
        node = await self._node(call)
        request: pb.RenewRequest = await call.recv()
        return wire.encode_admission(await self.admission.renew(node, request.csr, self.clock.now()))

    async def resolve(self, call: GrpcCall) -> pb.ResolveResponse:
        """What instances are entitled to."""
        node = await self._node(call)
        attestations, explain = wire.decode_resolve(await call.recv())
        async with self._turn(node):
            return wire.encode_entitlements(*await self.workloads.resolve(node, attestations, explain=explain))

    async def sign(self, call: GrpcCall) -> pb.SignResponse:
        """Leaves for instances."""
        node = await self._node(call)
        items = wire.decode_sign(await call.recv())
        return wire.encode_signed(await self.workloads.sign(node, items, self.clock.now()))

    async def sign_jwt(self, call: GrpcCall) -> pb.SignJwtResponse:
        """A token for an instance."""
        node = await self._node(call)
        item = wire.decode_sign_jwt(await call.recv())
        return pb.SignJwtResponse(token=await self.workloads.sign_jwt(node, item, self.clock.now()))

    async def sign_wit(self, call: GrpcCall) -> pb.SignWitResponse:
        """A token for an instance and the key it names."""
        node = await self._node(call)
        item = wire.decode_sign_wit(await call.recv())
        return pb.SignWitResponse(token=await self.workloads.sign_wit(node, item, self.clock.now()))

    async def follow(self, call: GrpcCall) -> None:
        """Hear live sets and tell changes until either side leaves."""
        await self._node(call)
        following = _Following()
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(call, following))
                await self._hear(call, following)
                telling.cancel()
        except BaseExceptionGroup as failures:
            raise _first_problem(failures) from failures

    async def _hear(self, call: GrpcCall, following: _Following) -> None:
        async for message in call:
            live = wire.decode_live(message)
            node = await self._node(call)
            async with self._turn(node):
                reported = await self.instances.report(node, live, self.clock.now())
            if reported is not None and reported.refused != following.refused:
                following.refused = reported.refused
                self.changes.notify()

    async def _tell(self, call: GrpcCall, following: _Following) -> None:
        with self.changes.following() as wake:
            while True:
                await wake.wait()
                node = await self._node(call)
                update = await self._update(node, following)
                same = following.told is not None and update == replace(
                    following.told, live_counter=update.live_counter
                )
                step = wire.Beat(live_counter=node.live_counter) if same else update
                held = following.told.revocation_lists if following.told else ()
                following.told = update
                await call.send(wire.encode_followed(step, held))

    async def _update(self, node: Node, following: _Following) -> wire.Update:
        bundle = self.leaves.authority.bundle(self.clock.now())
        document = wire.BundleDocument(trust_domain=bundle.trust_domain, document=bundle.to_jwks())
        return wire.Update(
            bundles=(document, *self.federation.documents(self.workloads.federates_with(node))),
            rules_version=self.workloads.rules_version,
            live_counter=await self.instances.counter(node) if following.told is None else node.live_counter,
            ended=following.refused,
            withdrawn_authorities=await self.leaves.withdrawn(self.clock.now()),
            revocation_lists=self.lists.ders,
            personal=await self.workloads.personal.versions(node),
            beat=self.beat,
            grace=self.instances.grace,
        )

    def _turn(self, node: Node) -> asyncio.Lock:
        return self.turns.setdefault(node.id, asyncio.Lock())

    async def _node(self, call: GrpcCall) -> Node:
        return await self.admission.recognise(peer_of(call.ssl_object), self.clock.now())


def _first_problem(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a group of failures comes down to for the caller: its first Problem, if every one is a Problem."""
    leaves = [one for one in failures.exceptions if isinstance(one, Problem)]
    return leaves[0] if len(leaves) == len(failures.exceptions) else failures
