"""What becomes of a broker on PostgreSQL when its store goes away, comes back, or is another one."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing

from broker.client.broker import Broker
from broker.client.stream import Snapshot
from journeys.brokers import CLOCK, ROLE, Brokers, brokers, told
from servers.postgres import Server, postgres, standby_of
from servers.standby import arrived, asked, promote


async def _works(found: Brokers) -> None:
    """An agent opens a task, gets secrets, uses them and ends it."""
    async with found.agent("load.py", "1", ROLE, order=list(found.running)) as agent:
        await told(agent, done=1)
        await agent.say("enough")
        await told(agent, over=1)


async def test_it_outlives_its_store_and_goes_on_when_that_is_back() -> None:
    """Nothing is given meanwhile; no loop of it has died, and what was under way is ended afterwards."""
    async with postgres(fresh=True) as under, brokers(under) as found:
        broker = await found.start("one")
        await _works(found)
        async with found.agent("load.py", "3", ROLE, order=["one"]) as agent:
            await told(agent, done=1)
            under.stop(signal.SIGKILL)
            said = await told(agent, error=None)
            assert said["error"] in {"Unavailable", "Unreachable", "TaskEnded", "OutcomeUnknown"}
            await CLOCK.sleep(3)
            under.start()
            async with asyncio.timeout(60):
                await told(agent, done=1)
            await agent.say("enough")
            while "over" not in await told(agent):
                pass
        assert broker.process.returncode is None
        await found.clean()


async def test_on_a_promoted_replica_it_is_another_incarnation_and_every_cursor_begins_anew() -> None:
    """It ends rather than go on with what it remembers; the next start compares, and waits to be told to destroy."""
    async with postgres(fresh=True) as primary:
        address = await primary.store("promoted")
        with standby_of(primary) as standby:
            both = address.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
            async with brokers(primary, both) as found:
                broker = await found.start("one")
                await _works(found)
                life = str(await _in_store(primary, "SELECT incarnation FROM installation"))
                await arrived(primary, standby)
                primary.stop(signal.SIGKILL)
                await promote(standby)
                assert await broker.ended() == 1
                assert "what was durable may be gone" in broker.errors.read_text()
                await found.start("one")
                since = "SELECT quarantined_at FROM installation WHERE incarnation <> '" + life + "'"
                assert await _in_store(standby, since) is not None
                async with (
                    Broker.on_socket(found.folder / "admin" / "one.sock") as operator,
                    aclosing(operator.events(cursor=f"{life}.1")) as events,
                ):
                    assert isinstance(await anext(events), Snapshot)
                await _works(found)


async def _in_store(server: Server, question: str) -> object:
    return await asked(server, question, "store_promoted")
