"""A broker's doors in a process of its own, for `crowds.py`: `python -m bench.event_server FOLDER`.

It says where it listens and gives the one enforcement point that is registered its certificate; each line of standard
input ends a task.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bench.process import heard, more_descriptors, say
from ca.runtime.clock import SystemClock
from ca.runtime.crowd import Crowd
from fakes.doors import doors
from fakes.pki import TestAuthority

POINT = "/gateway"


async def main(folder: Path) -> None:
    """Until nobody says anything any more."""
    more_descriptors()
    authority = TestAuthority(now=SystemClock().now())
    leaf = authority.leaf(POINT)
    points = [str(authority.id(POINT))]
    async with doors(folder, authority=authority, crowd=Crowd(100_000, share=1.0), points=points) as house:
        (folder / "point.pem").write_bytes(leaf.chain_pem() + leaf.key_pem())
        say({"address": house.url.removeprefix("https://").split(":"), "pem": str(folder / "point.pem")})
        while await heard() is not None:
            await house.house.end(await house.house.open())
            house.house.world.feed.set()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
