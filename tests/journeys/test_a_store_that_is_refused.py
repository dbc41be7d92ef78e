"""A broker does not start on a PostgreSQL that would lose what it calls durable, and says in a sentence why."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from fakes.stores import as_superuser, database_of, through
from fakes.wire_tap import tapped
from journeys.processes import SOJOURN, finished, short_folder
from servers.postgres import postgres, standby_of


@asynccontextmanager
async def without_fsync() -> AsyncIterator[str]:
    """What it calls durable is gone with the power."""
    async with postgres(options=("fsync=off",)) as server:
        yield await server.store("refused")


@asynccontextmanager
async def answering_early(how: str) -> AsyncIterator[str]:
    """It answers a commit before its disk, or its standby, has it."""
    async with postgres() as server:
        address = await server.store(f"early_{how}")
        await as_superuser(address, f"ALTER DATABASE {database_of(address)} SET synchronous_commit = {how}")
        yield address


@asynccontextmanager
async def behind_a_pooler() -> AsyncIterator[str]:
    """One that gives each transaction another connection."""
    async with postgres() as server, tapped(server.host, server.port) as tap:
        tap.pooling = True
        yield through(await server.store("pooled"), server.port, tap)


@asynccontextmanager
async def a_standby() -> AsyncIterator[str]:
    """A replica nobody has promoted."""
    async with postgres(fresh=True) as primary, AsyncExitStack() as stack:
        address = await primary.store("standby")
        standby = stack.enter_context(standby_of(primary))
        yield address.replace(f":{primary.port}/", f":{standby.port}/")


@pytest.mark.parametrize(
    ("store", "words"),
    [
        (without_fsync, "without `fsync` or `full_page_writes`"),
        (partial(answering_early, "off"), "`synchronous_commit` off"),
        (partial(answering_early, "local"), "`synchronous_commit` local"),
        (partial(answering_early, "remote_write"), "`synchronous_commit` remote_write"),
        (behind_a_pooler, "behind a pooler"),
        (a_standby, "takes no writes"),
    ],
    ids=["fsync", "off", "local", "remote_write", "pooler", "standby"],
)
async def test_it_does_not_start(store: Callable[[], AbstractAsyncContextManager[str]], words: str) -> None:
    """Nothing is written into it, and nothing listens."""
    async with store() as address:
        with short_folder() as folder:
            settings = {
                "listen": {"port": 0},
                "admin_socket": str(folder / "admin" / "broker.sock"),
                "workload_api": f"unix://{folder / 'nobody.sock'}",
                "database": address,
            }
            (folder / "broker.yaml").write_text(json.dumps(settings))
            done = await finished(SOJOURN, "broker", "--config", str(folder / "broker.yaml"), folder=folder)
            assert (done.code, done.out) == (1, "")
            assert words in done.err
            assert not (folder / "admin").exists()
