"""What rests sealed over a real `up --key`: a value, a lent account, our own password; also after kill -9."""

from __future__ import annotations

import asyncio
import secrets
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from broker.model.report import Fate
from ca.runtime.clock import SystemClock
from ca.runtime.places import Places, make
from journeys.leading import agent, told
from journeys.orders import TARGET
from journeys.processes import PATIENCE, short_folder
from journeys.up import RunningUp, up_in
from servers.postgres import Room, postgres

CLOCK = SystemClock()
MARK = f"a-value-{secrets.token_hex(12)}"
SHELF = """\
engine: {{kind: static}}
roles:
  key: {{sensitivity: internal}}
  ledger:
    sensitivity: internal
    ttl: 5m
    engine:
      check_out: {{target: orders-db, account: {account}}}
"""


@dataclass
class Place:
    """A database with an account somebody made long ago, and the folder of an `up`."""

    room: Room
    account: str
    places: Places

    async def opens(self, user: str, password: str) -> bool:
        """Whether it logs in."""
        try:
            session = await self.room.connect(user, password)
        except (asyncpg.PostgresError, OSError):
            return False
        await session.close()
        return True

    def resting(self) -> bytes:
        """Every byte of the state folder."""
        files = [path for path in Path(self.places.state).rglob("*") if path.is_file()]
        return b"".join(path.read_bytes() for path in files)


async def furnished(stack: AsyncExitStack) -> Place:
    """All of it, until the stack is left."""
    server = await stack.enter_async_context(postgres())
    room = await stack.enter_async_context(server.room())
    account, owner = f"ledger_{room.admin}", await server.connect()
    stack.push_async_callback(owner.close)
    await owner.execute(f"CREATE ROLE {account} LOGIN")
    stack.push_async_callback(owner.execute, f"DROP ROLE {account}")
    await owner.execute(f"GRANT {account} TO {room.admin} WITH ADMIN OPTION")
    places = Places.of(stack.enter_context(short_folder()) / "up")
    make(places.state)
    make(places.state / "targets")
    for name, text in (("orders-db", TARGET.format(room=room)), ("shelf", SHELF.format(account=account))):
        (places.state / "targets" / f"{name}.yaml").write_text(text)
    return Place(room, account, places)


async def done(up: RunningUp, *arguments: str, stdin: str = "") -> str:
    """A command that ends well."""
    finished = await up.sojourn(*arguments, stdin=stdin)
    assert finished.code == 0, finished.err
    return finished.out


async def fates(up: RunningUp, task: str) -> dict[str, Fate]:
    """What became of what a task was given, once nothing more will be added."""
    async with up.operator() as operator:
        while not (report := await operator.report(task)).final:
            await CLOCK.sleep(0.05)
    return {line.role: line.fate for line in report.leases}


async def test_what_rests_is_there_again_after_kill_9() -> None:
    """Value, account and our own password: used, ended as each guarantee says, and after a restart as before."""
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        place = await furnished(stack)
        named = {"ORDERS_PASSWORD": place.room.admin_password, "SEAL": secrets.token_hex(32)}
        async with up_in(place.places, named, key="env:SEAL", stopped=False) as up, agent(up, "one") as one:
            await done(up, "secret", "put", "shelf/key", stdin=MARK)
            await done(up, "target", "rotate", "orders-db")
            assert not await place.opens(place.room.admin, place.room.admin_password)
            task = (await told(one, "open", "task"))["task"]
            assert (await told(one, "obtain shelf/key", "value"))["value"] == MARK
            lent = await told(one, "obtain shelf/ledger", "password")
            assert lent["username"] == place.account
            assert await place.opens(place.account, lent["password"])
            await done(up, "task", "kill", task)
            found = await fates(up, task)
            assert (found["shelf/key"], found["shelf/ledger"]) == (Fate.LIVES_ON, Fate.GONE)
            assert not await place.opens(place.account, lent["password"])
            await up.running.end(signal.SIGKILL)
        for secret in (MARK, lent["password"]):
            assert secret.encode() not in place.resting()
        async with up_in(place.places, named, key="env:SEAL") as up, agent(up, "two") as two:
            await told(two, "open", "task")
            assert (await told(two, "obtain shelf/key", "value"))["value"] == MARK
            given = await told(two, "obtain orders-db/readonly", "password")
            assert await place.opens(given["username"], given["password"])


async def test_without_a_key_nothing_rests() -> None:
    """And whoever would put something is told."""
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        place = await furnished(stack)
        named = {"ORDERS_PASSWORD": place.room.admin_password}
        async with up_in(place.places, named) as up:
            for arguments in (("secret", "put", "shelf/key"), ("target", "rotate", "orders-db")):
                finished = await up.sojourn(*arguments, stdin=MARK)
                assert finished.code != 0
                assert "keys.seal" in finished.err
        assert MARK.encode() not in place.resting()
        assert await place.opens(place.room.admin, place.room.admin_password)
