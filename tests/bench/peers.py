"""Ours beside a real OpenBao: the same PostgreSQL, the same client, in turns of one run. `make bench-peers`.

Ours is the whole product as people run it: `sojourn up` in a process of its own, mutual TLS, every step durable, the
decision recorded, the hand-over acknowledged. OpenBao is run twice (`openbao.py`): in dev mode, which keeps nothing,
and as it is run in earnest. Eight agents ask each without pause. `apart`: PostgreSQL has one core for itself, whoever
is measured and this client share the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench import openbao
from bench.openbao import OpenBao
from bench.process import Other, module
from bench.rooms import room
from bench.table import Row, rate_rows, time_rows
from bench.timing import Load, Spread, cpu_seconds, now
from bench.whole import TARGET, Agent, agent, whole
from servers.postgres import Room

AGENTS = 8
_TURNS = 3
_EACH_TURN = 160
_ENDINGS = 30
_KINDS = ("scram-4096", "scram-few", "certificate")
_PEERS = {"dev": openbao.dev, "raft": openbao.raft}


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody who gives out users: one step of each of the agents, and the process whose CPU is counted."""

    process: Other
    obtain: Callable[[int], Awaitable[Any]]


async def measure(folder: Path) -> list[Row]:
    """Every kind of ours beside both OpenBaos, the database apart and on the same cores; then what an end is worth."""
    rows: list[Row] = []
    for apart in (True, False):
        if apart and len(os.sched_getaffinity(0)) < 2:
            continue
        rows += await _credentials(folder / f"apart-{apart}", apart=apart)
    return [*rows, *await _endings(folder / "endings")]


async def _credentials(folder: Path, *, apart: bool) -> list[Row]:
    where, rows = "apart" if apart else "sharing", []
    async with room(apart=apart, tls=True) as place, AsyncExitStack() as stack:
        parties = await stack.enter_async_context(_ours(folder / "ours", place))
        for name in _PEERS:
            parties[name] = await stack.enter_async_context(_theirs(folder / name, place, name))
        loads = await _in_turns(parties)
    for name in _PEERS:
        for kind in _KINDS:
            what, limit = f"PostgreSQL users, {kind}, {where}, {AGENTS} agents", _called(name)
            rows += rate_rows("peers", what, loads[kind], loads[name], limit, per_core=True)
            rows += time_rows("peers", f"one user, {kind}, {where}", loads[kind].each, loads[name].each, limit)
    return rows


@asynccontextmanager
async def _ours(folder: Path, place: Room) -> AsyncIterator[dict[str, Party]]:
    folder.mkdir(parents=True)
    async with whole(folder, place, kinds=_KINDS) as up, agent(up) as worker:
        tasks = [await worker.open() for _ in range(AGENTS)]

        def asking(kind: str) -> Party:
            return Party(up.process, lambda number: worker.obtain(tasks[number], f"{TARGET}/{kind}"))

        yield {kind: asking(kind) for kind in _KINDS}


@asynccontextmanager
async def _theirs(folder: Path, place: Room, name: str) -> AsyncIterator[Party]:
    folder.mkdir(parents=True)
    async with _PEERS[name](folder) as bao:
        await bao.furnish(place)
        yield Party(bao.process, lambda _: bao.obtain())


async def _in_turns(parties: dict[str, Party]) -> dict[str, Load]:
    for party in parties.values():
        await _asked(party, 2 * AGENTS)
    loads: dict[str, Load] = {}
    for _ in range(_TURNS):
        for name, party in parties.items():
            load = await _asked(party, _EACH_TURN)
            loads[name] = loads[name] + load if name in loads else load
    return loads


async def _asked(party: Party, count: int) -> Load:
    took: list[float] = []
    left = iter(range(count))

    async def one(number: int) -> None:
        for _ in left:
            before = now()
            await party.obtain(number)
            took.append(now() - before)

    begun, cpu = now(), cpu_seconds(party.process.pid)
    await asyncio.gather(*(one(number) for number in range(AGENTS)))
    used = cpu_seconds(party.process.pid) - cpu
    return Load(done=count, seconds=now() - begun, cpu=used, each=Spread.of(took))


async def _endings(folder: Path) -> list[Row]:
    """From the word that ends it to a refused login, and whether a session that was open outlives it."""
    rows = []
    async with room(tls=True) as place, module("try_login") as trying, AsyncExitStack() as stack:
        folder.mkdir()
        (folder / "ours").mkdir()
        up = await stack.enter_async_context(whole(folder / "ours", place, kind="scram-4096"))
        worker = await stack.enter_async_context(agent(up))
        ours, ours_left = await _ended(place, trying, lambda: _given_by_us(worker))
        for name, peer in _PEERS.items():
            (folder / name).mkdir()
            bao = await stack.enter_async_context(peer(folder / name))
            await bao.furnish(place)
            theirs, left = await _ended(place, trying, lambda bao=bao: _given_by_them(bao))  # type: ignore[misc]
            words = f"{_called(name)}, `sys/leases/revoke` with `sync`"
            rows += time_rows("peers", "end → login refused", ours, theirs, words)
            print(
                f"sessions open a second after the end, of {_ENDINGS}: {ours_left} of ours, {left} of {_called(name)}"
            )
    return rows


_Given = tuple[str, str, Callable[[], Awaitable[object]]]


async def _given_by_us(worker: Agent) -> _Given:
    task = await worker.open()
    given = await worker.obtain(task)
    return given["fields"]["username"], given["secret"]["password"], lambda: worker.end(task)


async def _given_by_them(bao: OpenBao) -> _Given:
    given = await bao.obtain()
    return given["data"]["username"], given["data"]["password"], lambda: bao.revoke(given["lease_id"])


async def _ended(place: Room, trying: Other, give: Callable[[], Awaitable[_Given]]) -> tuple[Spread, int]:
    took, left = [], 0
    for _ in range(_ENDINGS):
        user, password, end = await give()
        session = await place.connect(user, password)
        facts = {"host": place.host, "port": place.port, "database": place.database, "user": user}
        await trying.ask({**facts, "password": password})
        begun = now()
        _, refused = await asyncio.gather(end(), trying.hear())
        took.append(refused["refused_at"] - begun)
        left += await _lives_on(session)
        session.terminate()
    return Spread.of(took), left


async def _lives_on(session: asyncpg.Connection) -> bool:
    """Whether it still reads a second after the login was refused."""
    begun = now()
    while now() - begun < 1:
        try:
            await session.fetchval("SELECT 1")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            return False
        await asyncio.sleep(0.02)
    return True


def _called(name: str) -> str:
    return {"dev": "OpenBao, dev: in memory, plain HTTP", "raft": "OpenBao, raft on disk, TLS"}[name]
