"""The stream to the attestor server: follow, report, come back.

One connection carries the held stream and the calls beside it. The stream is level-triggered both ways: the server says
its whole state on every change, we say the complete live set, and both beat. When it breaks, what is held stays as it
is and the connection is tried again, a little later each time; nothing is given meanwhile that needs a signature.

Where there are several servers, the next one is tried whenever one does not answer, and kept as long as it does.

When the server says that this node was sent away, nothing is held any more: every stream ends, the node's key is
forgotten, and it has to prove itself anew: by a new join token, or by a proof that can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality

from attestor._proto import node_pb2 as pb
from attestor.node_agent import admission
from attestor.node_agent.admission import SERVER, Address
from attestor.node_agent.batch import Batch
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.identity import IdentityFile, NodeIdentity
from attestor.node_agent.joining import Joining
from attestor.wire import node as wire
from attestor.wire.answers import Unreachable, answers_from
from attestor.wire.attestation import Attestation, Entitlement
from attestor.wire.node import JwtItem, Refusal, Signed, SignItem, Update, WitItem
from ca.errors import Denied, Malformed, NotFound, Problem, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.leaving import still_wanted
from ca.runtime.process import Part, Wake
from ca.spiffe.bundle import Bundle, BundleSet

M = TypeVar("M", bound=Message)

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
PATIENCE = 30.0
"""Seconds a call may take."""
CONNECTED_WITHIN = 10.0
"""Seconds a connection may take; then the next server is tried."""
QUICKEST_BEAT = 0.5
MISSED_BEATS = 6
"""So many beats of silence, and the server is taken for gone."""

_log = log.get(__name__)


class Issuer(Protocol):
    """What the parts that serve processes need of the server."""

    bundles: BundleSet
    rules_version: str
    withdrawn: frozenset[bytes]
    revocation_lists: tuple[bytes, ...]
    personal: Mapping[str, str]

    @property
    def initialised(self) -> bool:
        """Whether the server has spoken since this process began: before that nothing can be served."""

    async def resolve(self, attestations: Sequence[Attestation]) -> list[Entitlement]:
        """What these instances are entitled to. Raises Unavailable."""

    async def sign(self, items: Sequence[SignItem]) -> list[Signed | Refusal]:
        """Leaves, each signed or refused by itself. Raises Unavailable."""

    async def sign_jwt(self, item: JwtItem) -> str:
        """A token. Raises NotEntitled, Unavailable."""

    async def sign_wit(self, item: WitItem) -> str:
        """A workload identity token. Raises NotEntitled, Unsupported, Unavailable."""


class Upstream:
    """The node agent's side of the link; `run` holds it. It is an `Issuer`.

    `report` is set by whoever changes the live set, `wake` here when the server's word changed what is due.
    """

    def __init__(
        self,
        address: Address,
        *,
        identity_file: IdentityFile,
        joining: Joining,
        holdings: Holdings,
        clock: Clock,
        wake: Wake,
        report: Wake,
        part: Part,
    ) -> None:
        self._address = address
        self._file = identity_file
        self._joining = joining
        self._holdings = holdings
        self._clock = clock
        self._wake = wake
        self._part = part
        self._identity: NodeIdentity | None = None
        self._saved: NodeIdentity | None = None
        self._channel: Channel | None = None
        self._report = report
        self._pause = FIRST_PAUSE
        self._returns = False
        self._resolve = Batch(self._ask_resolve, wire.MOST_ITEMS)
        self._sign = Batch(self._ask_sign, wire.MOST_ITEMS)
        self.bundles = BundleSet.of()
        self.rules_version = ""
        self.withdrawn: frozenset[bytes] = frozenset()
        self.revocation_lists: tuple[bytes, ...] = ()
        self.personal: Mapping[str, str] = {}

    @property
    def identity(self) -> NodeIdentity | None:
        """The node's own, if it was admitted."""
        return self._identity

    @property
    def initialised(self) -> bool:
        """Whether the server has spoken since this process began."""
        return bool(self.rules_version)

    async def run(self) -> None:
        """Hold the link for ever."""
        self._identity = self._saved = self._remembered()
        if self._identity is not None:
            self.bundles = BundleSet.of(self._identity.bundle)
        while True:
            try:
                await self._connect()
            except Problem as problem:
                self._part.waiting(f"the attestor server: {problem}")
                _log.warning("no link to the attestor server", error=problem)
            still_wanted()
            everybody_was_asked = self._turn()
            await self._clock.sleep(self._pause * (0.5 + secrets.randbelow(1000) / 1000))
            if everybody_was_asked:
                self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def _turn(self) -> bool:
        """Go on to the next server, unless it was we who broke the connection."""
        if self._returns:
            self._returns = False
            return False
        return self._address.turn()

    async def tick(self, now: datetime) -> None:
        """Replace the node's own SVID when it is past half its life or its authority is withdrawn; keep what changed.

        Raises:
            Unavailable: the server or the disk doesn't answer; what there is stays in use.
        """
        identity, channel = self._identity, self._channel
        due = identity is not None and (now >= identity.half_life or identity.authority in self.withdrawn)
        if due and channel is not None:
            try:
                self._identity = await admission.renew(channel, self._address.trust_domain)
            except (Denied, NotFound) as problem:  # what follows from it is the business of the next connection
                _log.warning("the node's identity is not renewed", error=problem)
                channel.close()
                return
            _log.info("the node's identity was renewed", until=self._identity.svid.not_after)
            self._returns = True
            channel.close()  # the stream ends, and the next connection shows the new one
        await self._keep()

    async def _keep(self) -> None:
        identity = self._identity
        if identity is not None and identity is not self._saved:
            await asyncio.to_thread(self._file.save, identity)
            self._saved = identity

    async def resolve(self, attestations: Sequence[Attestation]) -> list[Entitlement]:
        """What these instances are entitled to. Raises Unavailable."""
        return await self._resolve(attestations)

    async def explain(self, attestation: Attestation) -> Entitlement:
        """What it is entitled to, and why the other rules of this node give it nothing. Raises Unavailable."""
        request = wire.encode_resolve([attestation], explain=True)
        (found,) = _as_many(
            wire.decode_entitlements(await self._call(wire.RESOLVE, request, pb.ResolveResponse))[0], [attestation]
        )
        return found

    async def sign(self, items: Sequence[SignItem]) -> list[Signed | Refusal]:
        """Leaves, each signed or refused by itself. Raises Unavailable."""
        return await self._sign(items)

    async def sign_jwt(self, item: JwtItem) -> str:
        """A token. Raises NotEntitled, Unavailable."""
        return (await self._call(wire.SIGN_JWT, wire.encode_sign_jwt(item), pb.SignJwtResponse)).token

    async def sign_wit(self, item: WitItem) -> str:
        """A workload identity token. Raises NotEntitled, Unsupported, Unavailable."""
        return (await self._call(wire.SIGN_WIT, wire.encode_sign_wit(item), pb.SignWitResponse)).token

    async def _connect(self) -> None:
        identity = self._identity
        if identity is None or self._clock.now() >= identity.svid.not_after:
            identity = self._identity = await self._admitted()
            with contextlib.suppress(Unavailable):  # the token is used up: go on with what we got, `tick` tries again
                await self._keep()
        try:
            with answers_from(SERVER):
                async with self._address.known_by(identity, self._clock.now) as channel:
                    self._channel = channel
                    await self._follow(channel)
        except (Denied, NotFound) as problem:
            self._sent_away(problem)
            raise
        finally:
            self._channel = None

    async def _admitted(self) -> NodeIdentity:
        identity = await self._joining.join(self._address, self._clock.now)
        _log.info("this node was admitted", identity=str(identity.svid.id), until=identity.svid.not_after)
        return identity

    def _remembered(self) -> NodeIdentity | None:
        """The identity on disk, unless we are told to expect another root: then it is of a former server."""
        identity = self._file.load(self._clock.now())
        if identity is None or not self._joining.disowns(identity):
            return identity
        _log.warning("another root is expected: this node joins anew", identity=str(identity.svid.id))
        return None

    def _sent_away(self, problem: Problem) -> None:
        _log.error("the attestor server sent this node away", error=problem)
        self._identity = self._saved = None
        self._file.forget()
        self._holdings.drop_all()

    async def _follow(self, channel: Channel) -> None:
        call = channel.request(wire.FOLLOW, Cardinality.STREAM_STREAM, pb.FollowRequest, pb.FollowResponse)
        async with call as stream:
            try:
                async with asyncio.timeout(CONNECTED_WITHIN):
                    await stream.send_request()
            except TimeoutError as error:
                raise Unreachable("the attestor server does not answer") from error
            first = await self._next(stream, PATIENCE)
            if not isinstance(first, Update):
                raise Malformed("the attestor server's first message was not its state")
            self._holdings.count_from(first.live_counter)
            self._apply(first)
            self._pause = FIRST_PAUSE
            self._address.holds()
            self._part.ready()
            await self._converse(stream, first)

    async def _converse(self, stream: Stream[pb.FollowRequest, pb.FollowResponse], first: Update) -> None:
        """Report and hear until it breaks."""
        self._report.set()

        async def beat() -> None:
            while True:
                await self._clock.sleep(max(first.beat.total_seconds(), QUICKEST_BEAT))
                self._report.set()

        async def speak() -> None:
            while True:
                await self._report.wait()
                await stream.send_message(wire.encode_live(self._holdings.live()))

        async def hear() -> None:
            while True:
                step = await self._next(stream, max(first.beat.total_seconds(), QUICKEST_BEAT) * MISSED_BEATS)
                if isinstance(step, Update):
                    self._apply(step)

        try:
            async with asyncio.TaskGroup() as group:
                for part in (beat, speak, hear):
                    group.create_task(part())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__

    async def _next(self, stream: Stream[pb.FollowRequest, pb.FollowResponse], patience: float) -> Update | wire.Beat:
        try:
            async with asyncio.timeout(patience):
                message = await stream.recv_message()
        except TimeoutError as error:
            raise Unreachable("the attestor server has fallen silent") from error
        if message is None:
            raise Unreachable("the attestor server ended the stream")
        return wire.decode_followed(message, self.revocation_lists)

    def _apply(self, update: Update) -> None:
        """Take the server's state over."""
        bundles = BundleSet.of(*(Bundle.from_jwks(one.trust_domain, one.document) for one in update.bundles))
        changed, own = bundles != self.bundles, bundles.get(self._address.trust_domain)
        if own is None:
            raise Malformed("the attestor server sent no bundle of its own trust domain")
        # Only the keys of our own domain sign tokens: a federated one must not have them signed anew.
        if own != self.bundles.get(own.trust_domain) or update.withdrawn_authorities != self.withdrawn:
            self._holdings.forget_tokens()
        # A node admitted under another name has other rules of the same version.
        admission_id = self._identity.svid.instance if self._identity else None
        self.bundles, self.rules_version = bundles, f"{update.rules_version} {admission_id}"
        self.withdrawn, self.revocation_lists = update.withdrawn_authorities, update.revocation_lists
        self.personal = update.personal
        self._holdings.bar(update.ended)
        if self._identity is not None and own != self._identity.bundle:
            self._identity = replace(self._identity, bundle=own)
        if changed:
            self._holdings.announce()
        self._wake.set()

    async def _ask_resolve(self, attestations: Sequence[Attestation]) -> Sequence[Entitlement]:
        answer = await self._call(wire.RESOLVE, wire.encode_resolve(attestations), pb.ResolveResponse)
        entitlements, _ = wire.decode_entitlements(answer)
        return _as_many(entitlements, attestations)

    async def _ask_sign(self, items: Sequence[SignItem]) -> Sequence[Signed | Refusal]:
        answer = await self._call(wire.SIGN, wire.encode_sign(items), pb.SignResponse)
        return _as_many(wire.decode_signed(answer), items)

    async def _call(self, path: str, request: Message, answer: type[M]) -> M:
        if self._channel is None or not self.initialised:
            raise Unavailable("the attestor server can't be reached at the moment")
        with answers_from(SERVER):
            call = self._channel.request(path, Cardinality.UNARY_UNARY, type(request), answer, timeout=PATIENCE)
            async with call as stream:
                await stream.send_message(request, end=True)
                message = await stream.recv_message()
        if message is None:
            raise Unavailable("the attestor server answered nothing")
        return message


A = TypeVar("A")


def _as_many(answers: Sequence[A], questions: Sequence[object]) -> Sequence[A]:
    if len(answers) != len(questions):
        raise Unavailable("the attestor server answered another number of questions than it was asked")
    return answers
