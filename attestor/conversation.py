"""A conversation between who proves and who verifies: bytes, in turns.

A method of proof sees nothing else, so the same two halves run over gRPC and, joined by `pipe()`, in a test.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from attestor.errors import BadConversation

LONGEST_MESSAGE = 64 * 1024


class Conversation(Protocol):
    """One end."""

    async def send(self, message: bytes) -> None:
        """Say something."""

    async def receive(self) -> bytes:
        """Hear what the other end says. Raises BadConversation when it has gone."""


class _End:
    def __init__(self, incoming: asyncio.Queue[bytes | None], outgoing: asyncio.Queue[bytes | None]) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    async def send(self, message: bytes) -> None:
        if len(message) > LONGEST_MESSAGE:
            raise BadConversation(f"a message of a conversation must not be longer than {LONGEST_MESSAGE} bytes")
        await self._outgoing.put(message)

    async def receive(self) -> bytes:
        message = await self._incoming.get()
        if message is None:
            await self._incoming.put(None)
            raise BadConversation("the other end of the conversation has gone")
        return message

    async def close(self) -> None:
        """Leave: whoever waits at the other end is told."""
        await self._outgoing.put(None)


def pipe() -> tuple[_End, _End]:
    """Two ends of one conversation in this process."""
    there: asyncio.Queue[bytes | None] = asyncio.Queue()
    back: asyncio.Queue[bytes | None] = asyncio.Queue()
    return _End(there, back), _End(back, there)
