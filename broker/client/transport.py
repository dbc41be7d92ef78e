"""One session to a broker: every call, and in one place what each way of not being answered means.

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
from broker.client.answers import problem_of
from broker.client.stream import Message, Reader
from broker.wire import proof
from ca.errors import Malformed, Problem
from ca.runtime.clock import Clock

PATIENCE = aiohttp.ClientTimeout(total=60, sock_connect=10)
SILENCE = 5.0
"""Seconds without a byte after which a stream of events, which beats each second, counts as broken."""

_LARGEST = 16 * 1024 * 1024
_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """`where` names the other end in sentences; `hint` is what to do when nobody is there."""

    session: aiohttp.ClientSession
    where: str
    hint: str
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
    ) -> bytes:
        """One request; answers the body. Raises the Problem that was answered, or Unreachable."""
        options: dict[str, Any] = {"params": query, "headers": {**(headers or {}), **self._proof(method, path)}}
        if body is not None:
            options["data"] = body.model_dump_json(exclude_none=True).encode()
            options["headers"]["Content-Type"] = _JSON
        try:
            async with self.session.request(method, path, timeout=PATIENCE, **options) as answer:
                content = await _content(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.trouble(error) from error
        if answer.status >= 400:
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
        try:
            async with self.session.get(path, params=query, headers=headers, timeout=timeout) as answer:
                if answer.status >= 400:
                    raise problem_of(answer.status, await _content(answer))
                reader = Reader()
                async for piece in answer.content.iter_any():
                    for message in reader.feed(piece):
                        yield message
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.trouble(error) from error

    def trouble(self, error: Exception) -> Problem:
        """Why nobody answered."""
        judged = _judged(error)
        if judged is not None:
            return Unreachable(f"what answers at {self.where} is not the broker that is expected: {judged}")
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = (error.os_error.strerror or "no connection").lower()
            return Unreachable(f"can't reach the broker at {self.where}: {reason}; {self.hint}")
        if isinstance(error, TimeoutError):
            return Unreachable(f"the broker at {self.where} doesn't answer in time")
        return Unreachable(
            f"the broker at {self.where} closed the connection without an answer: it has just stopped, or refuses this "
            "identity (its log says why)"
        )

    def _proof(self, method: str, path: str) -> Mapping[str, str]:
        if self.key is None:
            return {}
        return {proof.HEADER: proof.mint(self.key, method, path, self.clock.now())}


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for piece in answer.content.iter_any():
        found += piece
        if len(found) > _LARGEST:
            raise Malformed(f"the broker's answer is longer than {_LARGEST} bytes")
    return bytes(found)


def _judged(error: BaseException | None) -> Problem | None:
    """What our own check of the server said, somewhere among the causes of a failed handshake."""
    while error is not None:
        if isinstance(error, Problem):
            return error
        error = error.__cause__
    return None
