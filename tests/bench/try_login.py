"""Somebody who tries a PostgreSQL login again and again until it is refused: `python -m bench.try_login`.

For each line of connection facts: one line when it was let in the first time, one with the moment it was refused. A
moment is that of CLOCK_MONOTONIC at which the refusal was here, so the attempt itself, some milliseconds, is in it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from bench.process import heard, say
from bench.timing import now


async def _enters(facts: dict[str, Any]) -> bool:
    try:
        session = await asyncpg.connect(**facts, ssl=False, timeout=10)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError):
        return False
    session.terminate()
    return True


async def main() -> None:
    """Until nobody asks any more."""
    say(["ready"])
    while (facts := await heard()) is not None:
        if not await _enters(facts):
            raise RuntimeError("the login was refused before it was ended")
        say(["in"])
        tries = 1
        while await _enters(facts):
            tries += 1
        say({"refused_at": now(), "tries": tries})


if __name__ == "__main__":
    asyncio.run(main())
