"""An attestor server in a process of its own, for `svids.py`: `python -m bench.svid_server FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from attestor.server.serve import serve
from bench.process import heard, say
from ca.runtime.clock import SystemClock
from ca.runtime.process import Readiness
from fakes.node_client import server_settings

_RULES = 10


async def main(folder: Path) -> None:
    """Serve until nobody wants it any more."""
    others = "".join(
        f'  - {{name: other-{n}, nodes: ["node:name:n"], when: ["unix:uid:{2000 + n}"], spiffe_id: /other/{n}}}\n'
        for n in range(_RULES - 1)
    )
    own = '  - {name: agent, nodes: ["node:name:n"], when: ["unix:uid:1000"], spiffe_id: /agent, bind: process}\n'
    (folder / "rules.yaml").write_text(f"rules:\n{others}{own}")
    settings = server_settings(folder, beat=timedelta(seconds=1))
    async with serve(settings, SystemClock(), Readiness()) as server:
        token = await server.issue_token("n")
        say({"address": server.address, "token": token.reveal()})
        await heard()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
