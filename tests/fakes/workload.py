"""A Workload API on a real socket, its issuer in the hand of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attestor.methods.workload.protocol import WorkloadSource
from attestor.methods.workload.unix import UnixSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.journal import Journal
from attestor.node_agent.limits import ConnectionLimit
from attestor.node_agent.reflection import Reflection
from attestor.node_agent.renewal import Renewal
from attestor.node_agent.sds import Naming, SecretDiscovery
from attestor.node_agent.serve import LONGEST_REQUEST
from attestor.node_agent.workload_api import Profiles, WorkloadApi
from ca.runtime import grpc
from ca.runtime.grpc import Connection, Method
from fakes.clock import ManualClock
from fakes.issuer import FakeIssuer
from fakes.pki import TestAuthority

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass
class Agent:
    """What runs."""

    path: Path
    clock: ManualClock
    issuer: FakeIssuer
    holdings: Holdings
    renewal: Renewal
    accepted: list[Connection]
    """Every connection there was, in their order."""

    @property
    def address(self) -> str:
        """For SPIFFE_ENDPOINT_SOCKET."""
        return f"unix://{self.path}"

    async def tick(self) -> None:
        """What the loop does."""
        await self.renewal.tick(self.clock.now())


def issuer_at(clock: ManualClock) -> FakeIssuer:
    """An issuer whose authority lives for a month."""
    return FakeIssuer(TestAuthority(now=clock.now(), ttl=timedelta(days=30)), clock)


@asynccontextmanager
async def workload_api(
    folder: Path,
    *,
    issuer: FakeIssuer | None = None,
    clock: ManualClock | None = None,
    connections: int = 64,
    most: int = 100,
    profiles: Profiles | None = None,
    naming: Naming | None = None,
    sources: Sequence[WorkloadSource] = (),
) -> AsyncIterator[Agent]:
    """Listen in `folder` until left."""
    folder.chmod(0o755)
    clock = clock or ManualClock(START)
    issuer = issuer or issuer_at(clock)
    async with AsyncExitStack() as stack:
        journal = Journal(folder / "journal")
        stack.callback(journal.close)
        holdings = Holdings(journal, most=most, ended=lambda: None)
        stack.callback(holdings.close)
        holdings.restore()
        holdings.count_from(0)
        source = UnixSource()
        stack.callback(source.close)
        renewal = Renewal(holdings, Attestor([source, *sources]), issuer, clock)
        limit = ConnectionLimit(connections)
        accepted: list[Connection] = []

        def accept(connection: Connection) -> object:
            accepted.append(connection)
            return limit.accept(connection)

        options = grpc.Options(accept=accept, release=limit.release, limit=LONGEST_REQUEST, drain=0.0)
        own = issuer.authority.trust_domain
        methods: list[Method] = [
            *WorkloadApi(renewal, issuer, clock, own, profiles).methods(),
            *SecretDiscovery(renewal, issuer, own, naming or Naming()).methods(),
        ]
        methods += Reflection(methods).methods()
        path = await stack.enter_async_context(
            grpc.listen_unix(methods, folder / "workload.sock", mode=0o666, options=options)
        )
        yield Agent(path, clock, issuer, holdings, renewal, accepted)
