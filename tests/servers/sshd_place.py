"""A host with a real sshd as the contract of engines sees it: with a list it reads, and without one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.engines.protocol import Issued, Lent
from broker.engines.ssh import Settings, open_engine
from broker.model.role import Role
from ca.keys import open_key_store
from ca.keys.protocol import KeyStore
from ca.keys.protocol import Place as KeyPlace
from ca.runtime.clock import Clock, SystemClock
from fakes.world import role
from servers.place import new_prefix
from servers.sshd import Server, Session, sshd


@dataclass
class SshVisit:
    session: Session

    async def answers(self) -> bool:
        return await asyncio.to_thread(self.session.says, "still there") == "still there"


@dataclass
class SshPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    server: Server
    keys: KeyStore
    visits: list[SshVisit] = field(default_factory=list)

    async def login(self, issued: Issued) -> SshVisit | None:
        visit = SshVisit(self.knock(issued, "cat"))
        return visit if await visit.answers() else None

    def knock(self, issued: Issued, *command: str, **more: Any) -> Session:
        """The client, told to run a command; shown out at the end."""
        key, certificate = issued.secret["private_key"].reveal(), str(issued.fields["certificate"])
        session = self.server.login(key, certificate, *command, **more)
        self.visits.append(SshVisit(session))
        return session


@asynccontextmanager
async def sshd_place(*, reads_list: bool = True, clock: Clock | None = None) -> AsyncIterator[SshPlace]:
    """A server of the test's own; its visitors leave with it."""
    clock = clock or SystemClock()
    with tempfile.TemporaryDirectory(prefix="sj-keys-", dir="/tmp") as keys, ExitStack() as stack:
        store = open_key_store("disk", KeyPlace(folder=Path(keys, "keys")))
        lent = Lent(clock=clock, target="hosts", keys=store)
        async with open_engine(Settings(host="127.0.0.1"), lent) as first:
            server = stack.enter_context(sshd(await first.authority(), reads_list=reads_list))
        async with open_engine(settings_for(server, reads_list=reads_list), lent) as engine:
            the_role = role(engine="ssh", settings={"principals": [server.user]})
            place = SshPlace(engine, the_role, clock, new_prefix(), server, store)
            try:
                yield place
            finally:
                for visit in place.visits:
                    visit.session.close()


def settings_for(server: Server, *, reads_list: bool = True) -> Settings:
    """What an operator would say of this host."""
    lists = (server.revocations,) if reads_list else ()
    return Settings(host=server.host, port=server.port, host_keys=(server.host_key,), revocations=lists)
