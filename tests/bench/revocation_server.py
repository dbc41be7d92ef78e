"""An attestor server that took many leaves back, for `revocations.py`: `python -m bench.revocation_server FOLDER`."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

from attestor.server.serve import serve
from attestor.server.settings import RevocationSettings
from bench.process import heard, more_descriptors, say
from ca import store
from ca.profiles.prepared import Kind
from ca.runtime.clock import SystemClock
from ca.runtime.process import Readiness
from ca.store import Issued
from fakes.node_client import server_settings

TAKEN_BACK = 1000
_RULE = '{name: agent, nodes: ["node:name:n"], when: ["unix:uid:1000"], spiffe_id: /agent, x509_ttl: 1h}'


async def main(folder: Path) -> None:
    """Serve until nobody wants it any more."""
    more_descriptors()
    (folder / "rules.yaml").write_text(f"rules: [{_RULE}]\n")
    quick = RevocationSettings(pause=timedelta(milliseconds=1))
    settings = server_settings(folder, beat=timedelta(seconds=1), revocation=quick)
    clock = SystemClock()
    async with serve(settings, clock, Readiness()) as server:
        parts = server._parts
        leaves = [
            Issued(
                issuer_key_id=parts.authority.issuer(clock.now()).key_id,
                serial=secrets.randbits(158) | 1,
                kind=Kind.LEAF,
                spiffe_id="spiffe://example.org/agent",
                instance=None,
                not_after=clock.now() + timedelta(hours=1),
            )
            for _ in range(TAKEN_BACK)
        ]
        await parts.database.write(partial(store.revoke, leaves=leaves, reason="over", now=clock.now()))
        await parts.lists.tick(clock.now())
        token = await server.issue_token("n")
        say({"address": server.address, "token": token.reveal(), "admin": str(server.admin_socket)})
        await heard()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
