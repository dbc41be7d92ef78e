"""The primary dies and its replica is promoted: a server ends rather than go on with what it remembers."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack

from journeys.processes import short_folder
from journeys.servers import NAMES, Several, write_settings
from servers.postgres import postgres, standby_of
from servers.standby import arrived, promote
from servers.standing import free_port


async def test_a_server_begins_anew_on_a_promoted_replica() -> None:
    """With the same keys and the same nodes, because everything had arrived there."""
    with short_folder() as folder:
        async with postgres(fresh=True) as primary, AsyncExitStack() as stack:
            address = await primary.store("promoted")
            standby = stack.enter_context(standby_of(primary))
            both = address.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
            found = Several(folder, both, stack, {name: free_port() for name in NAMES})
            write_settings(found)
            server = await found.start("one")
            key = await found.active("one", "root")
            await arrived(primary, standby)
            primary.stop(signal.SIGKILL)
            await promote(standby)
            assert await server.ended() == 1
            assert "what was durable may be gone" in server.errors.read_text()
            await found.start("one")
            assert await found.active("one", "root") == key
