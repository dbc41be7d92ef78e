"""/v1/kills: what an operator ends at once, whatever works in it."""

from __future__ import annotations

from broker.api.door import asked, gate
from broker.service import kills
from broker.wire.kills import AskKill, KillTold
from ca.runtime.web import Call, Route


async def kill(call: Call) -> KillTold:
    """End tasks, or say which would end."""
    ask: AskKill = call.body
    what = ask.to_kill()
    if ask.dry_run:
        return KillTold.of(await kills.look(gate(call), asked(call), what), None)
    return KillTold.of(*await kills.kill(gate(call), asked(call), what, ask.words, ask.most))


ROUTES = (Route("POST", "/v1/kills", kill, summary="End tasks, or list what would end", body=AskKill, answer=KillTold),)
