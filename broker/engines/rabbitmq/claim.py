"""Whose target this is: a user nothing can open, whose name and tag say which installation (traps 19).

A PUT makes or replaces, so a name of one's own decides nothing. Each installation puts a claim of its own name, and
only where it saw none before; then it looks again, and takes its own back when another stands beside it. Of two that
come at once each may lose, and never do both win.
"""

from __future__ import annotations

import re

from broker.engines.protocol import Claim
from broker.engines.rabbitmq import principal
from broker.engines.rabbitmq.reach import Reach
from ca.errors import Conflict

PREFIX = "sj_claim_"
"""No name of a principal begins with it: an installation id has eight characters."""

_TAG = re.compile(r"incarnation-([A-Za-z0-9]{1,40})")


async def claim(reach: Reach, installation: str, incarnation: str) -> Claim:
    """Make the claim if there is none, and read it. Raises Conflict: the target is another's."""
    ours = PREFIX + installation
    fresh = not await principal.names(reach, PREFIX)
    if fresh:
        await principal.put_user(reach, ours, None, tags=_tag(incarnation))
    others = [name for name in await principal.names(reach, PREFIX) if name != ours]
    if others:
        if fresh:
            await reach.delete("users", ours)
        raise Conflict(
            f"this target is claimed by the installation `{others[0].removeprefix(PREFIX)[:20]}`;"
            f" delete the user `{others[0][:40]}` there if it is no more"
        )
    return Claim(installation=installation, incarnation=await _incarnation(reach, ours))


async def adopt(reach: Reach, installation: str, incarnation: str) -> None:
    """Say anew which incarnation of ours the claim belongs to. Raises Conflict: the target is another's."""
    await claim(reach, installation, incarnation)
    await principal.put_user(reach, PREFIX + installation, None, tags=_tag(incarnation))


async def _incarnation(reach: Reach, name: str) -> str:
    """What the claim's tag says; empty when it says nothing we can read, which is no incarnation of anybody."""
    tags = (await reach.get("users", name)).row().texts("tags")
    found = [match[1] for tag in tags if (match := _TAG.fullmatch(tag))]
    return found[0] if len(found) == 1 else ""


def _tag(incarnation: str) -> str:
    return f"incarnation-{incarnation}"
