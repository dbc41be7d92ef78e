"""One session to a broker, or to several over one store: every call, and what each way of not being answered means.

A broker refuses a client's certificate by closing the connection without a word (`ca/tls.py`), and the client notices
only when it reads; so an empty answer is told as what it most likely is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import aiohttp
from joserfc.jwk import ECKey
from pydantic import BaseModel

from attestor.client.errors import Unreachable
from broker.client.addresses import Addresses
from broker.client.answers import Answer, problem_of
from broker.client.stream import Message, Reader
from broker.wire import proof
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime.clock import Clock

PATIENCE = aiohttp.ClientTimeout(total=60, sock_connect=10)
HURRY = aiohttp.ClientTimeout(total=20, sock_connect=3)
"""Where there is another broker to go to: a frozen one still lets the kernel accept connections."""
SILENCE = 5.0
"""Seconds without a byte after which a stream of events, which beats each second, counts as broken."""

_LARGEST = 16 * 1024 * 1024
_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """`where` names the other end in sentences; `hint` is what to do when nobody is there.

    `addresses` are put before every path; left out, `session` has one of its own.
    """

    session: aiohttp.ClientSession
    where: str
    hint: str
    addresses: Addresses = field(default_factory=lambda: Addresses(("",)))
    clock: Clock
    key: ECKey | None = field(default=None, repr=False)
    silence: float = SILENCE

    def proven_by(self, key: ECKey) -> Self:
        """The same session; each request also carries a proof by `key`."""
        return replace(self, key=key)

    async def call(
        self,
        method: str,
        path: str,
        body: BaseModel | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> Answer:
        """One request; answers the body. Raises the Problem that was answered, or Unreachable.

        Of several brokers the next one is asked when this one can't be reached; when it was and did not answer, or says
        that it can't do anything now, only if twice is once: what is read, and what is marked `again`.
        """
        repeatable = again or method == "GET"
        trouble: Unavailable = Unreachable(self.hint)
        for base in self.addresses.in_turn():
            try:
                return await self._once(base, method, path, body, query=query, headers=headers or {})
            except _NotSent as error:
                trouble = error.problem
            except Unavailable as error:
                if not _is_its_own(error):
                    raise
                if not repeatable:
                    self.addresses.give_up(base)
                    raise
                trouble = error
            self.addresses.give_up(base)
        raise trouble

    async def _once(
        self,
        base: str,
        method: str,
        path: str,
        body: BaseModel | None,
        *,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> Answer:
        shown = {**headers, **self._proof(method, path)}
        options: dict[str, Any] = {"params": query, "headers": shown, "allow_redirects": False}
        if body is not None:
            options["data"] = body.model_dump_json(exclude_none=True).encode()
            options["headers"]["Content-Type"] = _JSON
        timeout = HURRY if self.addresses.several else PATIENCE
        try:
            async with self.session.request(method, base + path, timeout=timeout, **options) as answer:
                content = await _content(answer)
        except _NOT_CONNECTED as error:
            raise _NotSent(self.trouble(error, base)) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.trouble(error, base) from error
        if answer.status >= 300:  # a broker sends nobody elsewhere
            raise problem_of(answer.status, content)
        return content

    async def messages(
        self, path: str, *, query: Mapping[str, str] | None, cursor: str | None
    ) -> AsyncGenerator[Message, None]:
        """The messages of one stream of events, until it ends. Raises as `call`."""
        headers = {"Accept": "text/event-stream", **self._proof("GET", path)}
        if cursor is not None:
            headers["Last-Event-ID"] = cursor
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=self.silence)
        base = next(self.addresses.in_turn())
        try:
            async with self.session.get(
                base + path, params=query, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status >= 300:
                    raise problem_of(answer.status, await _content(answer))
                reader = Reader()
                try:
                    async for piece in answer.content.iter_any():
                        for message in reader.feed(piece):
                            yield message
                finally:
                    _abort(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.addresses.give_up(base)
            raise self.trouble(error, base) from error

    def trouble(self, error: Exception, base: str = "") -> Unreachable:
        """Why nobody answered."""
        where, judged = base or self.where, _judged(error)
        if judged is not None:
            return Unreachable(f"what answers at {where} is not the broker that is expected: {judged}")
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = (error.os_error.strerror or "no connection").lower()
            return Unreachable(f"can't reach the broker at {where}: {reason}; {self.hint}")
        if isinstance(error, TimeoutError):
            return Unreachable(f"the broker at {where} doesn't answer in time")
        return Unreachable(
            f"the broker at {where} closed the connection without an answer: it has just stopped, or refuses this "
            "identity (its log says why)"
        )

    def _proof(self, method: str, path: str) -> Mapping[str, str]:
        if self.key is None:
            return {}
        return {proof.HEADER: proof.mint(self.key, method, path, self.clock.now())}


_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""Before there is a connection nothing was sent; a handshake that failed is among them."""


class _NotSent(Exception):
    """Nobody has heard of the request."""

    def __init__(self, problem: Unreachable) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _is_its_own(problem: Unavailable) -> bool:
    """Whether another broker may do better: not when a target is down, or the same request is under way."""
    return type(problem) in {Unavailable, Unreachable}


async def _content(answer: aiohttp.ClientResponse) -> Answer:
    pieces: list[Answer] = []
    size = 0
    async for piece in answer.content.iter_any():
        pieces.append(Answer(piece))
        size += len(piece)
        del piece
        if size > _LARGEST:
            raise Malformed(f"the broker's answer is longer than {_LARGEST} bytes")
    return Answer(b"".join(pieces))


def _abort(answer: aiohttp.ClientResponse) -> None:
    """Leave a stream that has no end by itself: no farewell is waited for, which would outlive the event loop."""
    connection = answer.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def _judged(error: BaseException | None) -> Problem | None:
    """What our own check of the server said, somewhere among the causes of a failed handshake."""
    while error is not None:
        if isinstance(error, Problem):
            return error
        error = error.__cause__
    return None
