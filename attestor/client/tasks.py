"""Process ends, where the server is ours: a broker says which instances opened a task and hears what becomes of them.

The link is level-triggered. With each connection all instances are named and answered by a complete snapshot, so what
was missed while it was down is made up for. After that every change of any instance comes with the next number; a gap
breaks the connection, and the snapshot of the next one closes it. While the link is down an instance that lived is
`unobserved`: nothing new is given to it, and nothing is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality

from attestor._proto import task_pb2 as pb
from attestor.client.backoff import Backoff
from attestor.client.beside import beside
from attestor.client.errors import Unreachable
from attestor.client.source import X509Material
from attestor.client.tls import ClientContexts, Refused
from attestor.instance import State
from attestor.wire import task as wire
from attestor.wire.answers import answers_from
from attestor.wire.node import SERVER_PATH
from attestor.wire.task import Beat, Bound, InstanceChange, Snapshot, Watched
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.leaving import still_wanted
from ca.spiffe.match import IdPattern

PATIENCE = 10.0
"""Seconds a call may take."""
SILENCE = 15.0
"""Seconds without a word, not even a beat, after which the connection is taken for dead."""

Answer = TypeVar("Answer", bound=Message)
_log = log.get(__name__)


class TaskLink:
    """The link to the attestor server, or to one of several over one store; made by `open`."""

    def __init__(
        self,
        source: X509Material,
        host: str,
        port: int,
        *,
        others: Iterable[tuple[str, int]] = (),
        refused: Refused | None = None,
    ) -> None:
        server = IdPattern.exactly(source.svid.id.trust_domain.member(SERVER_PATH))
        self._contexts = ClientContexts(source, server, refused=refused, alpn=("h2",))
        self._clock: Clock = source.clock
        self._places, self._at = ((host, port), *others), 0
        self._watched: set[str] = set()
        self._changes: asyncio.Queue[InstanceChange] = asyncio.Queue()
        self._states: dict[str, State] = {}
        self._current = False
        self._fresh = False
        self._link: Channel | None = None
        self._silence, self._patience = SILENCE, PATIENCE

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        source: X509Material,
        host: str,
        port: int,
        *,
        others: Iterable[tuple[str, int]] = (),
        watched: Iterable[str] = (),
        refused: Refused | None = None,
        silence: float = SILENCE,
        patience: float = PATIENCE,
    ) -> AsyncIterator[TaskLink]:
        """Follow the server at `host`:`port` as to the instances `watched`; it need not answer yet.

        `others` are further servers over the same store: when one does not answer the next is asked.
        """
        link = cls(source, host, port, others=others, refused=refused)
        link._silence, link._patience = silence, patience
        link._watched.update(watched)
        async with beside(link._follow()):
            yield link

    @property
    def connected(self) -> bool:
        """Whether what is known is current."""
        return self._current

    def state(self, instance: str) -> State:
        """The newest word about `instance`; UNKNOWN before the first, and UNOBSERVED while the link is down."""
        state = self._states.get(instance, State.UNKNOWN)
        return State.UNOBSERVED if state is State.LIVE and not self.connected else state

    async def bind(self, instance: str) -> Bound:
        """Say that `instance` opened a task, and watch it from now on. Raises Unavailable when nobody answers."""
        self.watch([instance])
        bound = wire.decode_bound(await self.ask(wire.BIND, wire.encode_bind(instance), pb.BindResponse))
        # A change that overtook this answer is newer than it.
        return replace(bound, state=self._states.setdefault(instance, bound.state))

    def watch(self, instances: Iterable[str]) -> None:
        """Hear of these too; what became of them before is told by `bind`, or by the next snapshot."""
        self._watched.update(instances)

    def forget(self, instances: Iterable[str]) -> None:
        """Their tasks are over: they are asked for no more."""
        for instance in tuple(instances):
            self._watched.discard(instance)
            self._states.pop(instance, None)

    async def changes(self) -> AsyncIterator[InstanceChange]:
        """What became of the instances, each change once; `live` is told only of one that was something else."""
        while True:
            yield await self._changes.get()

    async def ask(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        """One question, over the link or, while it is down, over a connection of its own.

        Raises:
            Unreachable: nobody was there to hear it, or nobody answered: it may have been heard.
            Problem: what the server answered.
        """
        with answers_from("the attestor server"):
            if self._link is not None:
                heard = await _asked(self._link, method, request, answer)
            else:
                async with self._channel() as channel:
                    heard = await _asked(channel, method, request, answer)
        if heard is None:
            raise Unavailable("the attestor server answered nothing")
        return heard

    async def _follow(self) -> None:
        """Hold the link for ever. A break that is mended at once, as after a rotation, is not told."""
        backoff = Backoff(self._clock)
        while True:
            try:
                with answers_from("the attestor server"):
                    async with self._channel() as self._link:
                        await self._hold(self._link, backoff)
            except Problem as error:
                _log.warning("the link to the attestor server is down", error=error)
                self._at = (self._at + 1) % len(self._places)
            still_wanted()
            self._link = None
            if self._fresh:
                self._fresh = False
                continue
            self._current = False
            await backoff.wait()

    async def _hold(self, channel: Channel, backoff: Backoff) -> None:
        """One stream, until it breaks."""
        asked = frozenset(self._watched)
        call = channel.request(wire.WATCH, Cardinality.UNARY_STREAM, pb.WatchRequest, pb.WatchResponse)
        async with call as stream:
            try:
                async with asyncio.timeout(self._patience):  # the connection is made here, and nobody may answer
                    await stream.send_message(wire.encode_watch(asked), end=True)
            except TimeoutError as error:
                raise Unreachable("the attestor server does not answer") from error
            cursor: int | None = None
            while (message := await self._next(stream)) is not None:
                cursor = self._apply(wire.decode_watched(message), asked, cursor)
                backoff.reset()

    async def _next(self, stream: Stream[pb.WatchRequest, pb.WatchResponse]) -> pb.WatchResponse | None:
        """The next message. Raises Unreachable after a silence in which even a beat was missing."""
        try:
            async with asyncio.timeout(self._silence):
                return await stream.recv_message()
        except TimeoutError as error:
            self._fresh = False  # what was last heard is old already: it is not current while we try again
            raise Unreachable("the attestor server has fallen silent") from error

    def _apply(self, step: Watched, asked: frozenset[str], cursor: int | None) -> int:
        if isinstance(step, Snapshot):
            self._current = self._fresh = True
            told = {change.instance: change for change in step.changes}
            for instance in asked & self._watched:
                live = InstanceChange(instance=instance, state=State.LIVE, reason="", cursor=step.cursor)
                self._move(told.get(instance, live))
            return step.cursor
        if cursor is None:
            raise Malformed("the attestor server sent a change before its snapshot")
        if isinstance(step, Beat):
            if step.cursor != cursor:
                raise Unreachable("the attestor server's changes have a gap")
            return cursor
        if step.cursor != cursor + 1:
            raise Unreachable("the attestor server's changes have a gap")
        if step.instance in self._watched:
            self._move(step)
        return step.cursor

    def _move(self, change: InstanceChange) -> None:
        before = self._states.get(change.instance, State.LIVE)
        if before is State.ENDED:
            return  # final
        self._states[change.instance] = change.state
        if change.state is not before:
            self._changes.put_nowait(change)

    def _channel(self) -> Channel:
        host, port = self._places[self._at]
        return Channel(host=host, port=port, ssl=self._contexts.newest())


async def _asked(channel: Channel, method: str, request: Message, answer: type[Answer]) -> Answer | None:
    call = channel.request(method, Cardinality.UNARY_UNARY, type(request), answer, timeout=PATIENCE)
    async with call as stream:
        await stream.send_message(request, end=True)
        return await stream.recv_message()
