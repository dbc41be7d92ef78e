"""T3: whoever cuts the broker off from the attestor server must not keep dead processes looking alive.

The attacker sits on the way: it lets nothing through any more, and accepts every new connection without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from attestor.client.source import X509Source
from attestor.client.tasks import TaskLink
from attestor.instance import State
from attestor.rules.model import ANY_NODE, Condition
from attestor.selector import Selector
from attestor.server.settings import OwnPart
from fakes.identity_side import CLOCK, address, both

BROKER = OwnPart(
    name="broker",
    nodes=Condition.all_of([ANY_NODE]),
    when=Condition.all_of([Selector.parse("unix:self:true")]),
)


@dataclass
class Road:
    """Carries bytes to a server, until `cut`; `broken` when the connections it carried are told so."""

    where: tuple[str, int]
    cut: bool = False
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.writers.append(writer)
        if self.cut:
            return
        there, onward = await asyncio.open_connection(*self.where)
        self.writers.append(onward)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, onward))
            group.create_task(self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(65536):
                if not self.cut:
                    writer.write(content)
        writer.close()

    def close(self) -> None:
        """End every connection."""
        for writer in self.writers:
            writer.close()
        self.writers.clear()


@asynccontextmanager
async def road(where: tuple[str, int]) -> AsyncIterator[tuple[Road, int]]:
    """A way to `where`, and the port at which it begins."""
    way = Road(where)
    async with await asyncio.start_server(way.carry, "127.0.0.1", 0) as listening:
        try:
            yield way, listening.sockets[0].getsockname()[1]
        finally:
            way.close()


async def turns(link: TaskLink, *, connected: bool) -> None:
    """Wait until the link says so."""
    async with asyncio.timeout(40):
        while link.connected is not connected:
            await CLOCK.sleep(0.01)


@asynccontextmanager
async def linked(folder: Path, patience: float) -> AsyncIterator[tuple[TaskLink, Road, str]]:
    """A link by way of a road, and an instance that lives: the broker's own."""
    async with (
        both(folder, parts=(BROKER,)) as (server, node),
        X509Source.open(address(node), CLOCK) as source,
        road(server.address) as (way, port),
        TaskLink.open(source, "127.0.0.1", port, silence=4, patience=patience) as link,
    ):
        assert source.svid.instance is not None
        await turns(link, connected=True)
        assert (await link.bind(source.svid.instance)).state is State.LIVE
        yield link, way, source.svid.instance


async def test_a_silent_server_vouches_for_nobody(tmp_path: Path) -> None:
    """Once silence was noticed nothing is current, also while a new connection is tried."""
    async with linked(tmp_path, patience=600) as (link, way, instance):
        way.cut = True
        await turns(link, connected=False)
        assert link.state(instance) is State.UNOBSERVED
        way.cut = False
        way.close()
        await turns(link, connected=True)
        assert link.state(instance) is State.LIVE


async def test_a_connection_that_is_accepted_and_never_answered_is_given_up(tmp_path: Path) -> None:
    """A break that is mended at once is not told; one that only looks mended is."""
    async with linked(tmp_path, patience=0.5) as (link, way, instance):
        way.cut = True
        way.close()
        await turns(link, connected=False)
        assert link.state(instance) is State.UNOBSERVED
