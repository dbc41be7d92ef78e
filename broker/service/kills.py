"""Kills: what an operator would end, seen first; then ended."""

from __future__ import annotations

from broker.lifecycle.kill import kill as kill_all
from broker.model.caller import Verb
from broker.model.kill import NARROW, Doomed, Kill, Killed
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import kills

LISTED = 1000
"""Tasks an answer lists; it counts all."""


async def look(gate: Gate, asked: Asked, kill: Kill) -> Doomed:
    """What would die: every task it names, and everything below. Raises Denied."""
    _demand(asked, kill)
    return await gate.world.database.read(lambda tx: kills.doomed(tx, kill, LISTED))


async def kill(gate: Gate, asked: Asked, kill: Kill, words: str | None, most: int | None) -> tuple[Doomed, Killed]:
    """End it; answers what was there, and what ended. Twice is once. Raises Denied."""
    seen = await look(gate, asked, kill)
    ended = await kill_all(gate.world, kill, words=words, actor=str(asked.caller), now=asked.now, most=most)
    return seen, ended


def _demand(asked: Asked, kill: Kill) -> None:
    asked.demand(Verb.END_TASKS)
    if kill.reach not in NARROW:
        asked.demand(Verb.KILL_MANY)
