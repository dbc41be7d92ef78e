"""A storm of handshakes, by somebody who has one hello and shows it again and again: python storm.py HOST PORT AT_ONCE.

The other end agrees on a key and signs for each, which costs it a hundred times of what a hello costs here. It goes on
until it is told anything, and says `{"storm": n}` at the start and at the end.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from contextlib import suppress


def hello() -> bytes:
    """What a client of TLS 1.3 says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said).do_handshake()
    return said.read()


def say(answered: int) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"storm": answered}) + "\n")
    sys.stdout.flush()


class Storm:
    """So many at once, for ever."""

    def __init__(self, host: str, port: int) -> None:
        self._where, self._hello, self.answered = (host, port), hello(), 0

    async def one(self) -> None:
        """Again and again."""
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(*self._where)
                writer.write(self._hello)
                answer = await reader.read(1)
                self.answered += len(answer)
                writer.transport.abort()


async def main(host: str, port: int, at_once: int) -> None:
    """Storm."""
    storm, loop = Storm(host, port), asyncio.get_running_loop()
    say(0)
    async with asyncio.TaskGroup() as group:
        storming = [group.create_task(storm.one()) for _ in range(at_once)]
        await loop.run_in_executor(None, sys.stdin.readline)
        for one in storming:
            one.cancel()
    say(storm.answered)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
