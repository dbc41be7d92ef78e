"""A broker's two doors on real sockets, over a real store, with real policies; only the target is pretended.

async with doors(tmp_path) as house:
    async with house.as_agent() as broker: ...        mutual TLS, by an instance the test names
    async with house.as_operator() as broker: ...     the operators' socket

Certificates are of the real time, because OpenSSL asks the machine's own clock.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from attestor.client.tls import server_context
from broker.api import ROUTES
from broker.api.door import DOOR, Door
from broker.api.identify import by_certificate, by_socket, still
from broker.client.broker import Broker
from broker.engines.protocol import Finding, Issued
from broker.events.feed import Feed
from broker.lifecycle.reload import Holding, Reloaded
from broker.model.lease import Handle
from broker.model.role import Role
from broker.policy.source import PolicyHolder
from broker.service.gate import Gate, Limits
from broker.service.operators import KnownOperators
from broker.service.proofs import Proofs
from ca.errors import Problem
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.crowd import Crowd
from ca.runtime.metrics import Metrics
from ca.runtime.process import background
from ca.runtime.secret import Secret
from ca.runtime.web import application, listen, listen_unix
from ca.seal import Seal
from ca.spiffe.bundle import BundleSet
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Svid
from fakes.pki import TestAuthority
from fakes.target import FakeEngine, FakeTarget
from fakes.world import House, living, role

AGENT_PATH = "/agents/billing"
INSTANCE = "0123456789abcdef" * 2
PASSWORD = "tulip:back\\slash"
CLOCK = SystemClock()


@dataclass
class Material:
    """A source in the hand of the test."""

    svid: X509Svid
    bundles: BundleSet
    clock: Clock = CLOCK
    revocations: RevocationLists = field(default_factory=RevocationLists)


class Database(FakeEngine):
    """A target that gives what a PostgreSQL would, and can be checked."""

    findings: Sequence[Finding] = (Finding(name="reachable", well=True, detail="PostgreSQL 15"),)

    async def create(self, handle: Handle, role: Role, *moments: Any) -> Issued:
        made = await super().create(handle, role, *moments)
        fields = {"host": "db.example.org", "port": 5432, "database": "orders", **made.fields}
        url = Secret(f"postgresql://{handle.name}@db.example.org:5432/orders?sslmode=require")
        return Issued(fields=fields, secret={"password": Secret(PASSWORD), "url": url})

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        return self.findings


@dataclass
class Doors:
    """What runs, and switches for what should go wrong."""

    house: House
    gate: Gate
    authority: TestAuthority
    socket: Path
    targets_folder: Path
    url: str = ""
    reloads: int = 0
    held: Sequence[Holding] = ()
    reload_problem: Problem | None = None
    refused: list[Problem] = field(default_factory=list)

    def material(
        self, path: str = AGENT_PATH, *, instance: str | None = INSTANCE, authority: TestAuthority | None = None
    ) -> Material:
        """An SVID of this authority, or of another that claims to be it."""
        leaf = (authority or self.authority).leaf(path, instance=instance, now=CLOCK.now())
        return Material(leaf, BundleSet.of(self.authority.bundle()))

    def as_agent(self, path: str = AGENT_PATH, **said: Any) -> AbstractAsyncContextManager[Broker]:
        """A client over mutual TLS."""
        return Broker.connect(self.material(path, **said), self.url)

    def as_operator(self) -> AbstractAsyncContextManager[Broker]:
        """A client on the operators' socket."""
        return Broker.on_socket(self.socket)

    @property
    def engine_target(self) -> FakeTarget:
        """The outside."""
        target: FakeTarget = self.house.engine.target
        return target

    async def reload(self, confirmed_by: str | None) -> Reloaded:
        """What `up` does when its folder of targets changed, without opening what is named there."""
        self.reloads += 1
        if self.reload_problem is not None:
            raise self.reload_problem
        named = {path.stem for path in self.targets_folder.glob("*.yaml")}
        engines: Any = self.house.world.engines
        for name in named - set(engines):
            engines[name] = self.house.engine
        held = () if confirmed_by else self.held
        return Reloaded(changed=sorted(named), held=held, ending=sum(one.leases for one in self.held if confirmed_by))


@asynccontextmanager
async def doors(
    folder: Path,
    *,
    engine: FakeEngine | None = None,
    the_role: Role | None = None,
    authority: TestAuthority | None = None,
    seal: Seal | None = None,
    crowd: Crowd | None = None,
    points: Sequence[str] = (),
) -> AsyncIterator[Doors]:
    """Both doors; `folder` must be short enough for a socket's path."""
    the_role = the_role or role(engine="postgres")
    engine = engine or Database(FakeTarget(CLOCK))
    authority = authority or TestAuthority(now=CLOCK.now())
    policies = PolicyHolder(None)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        house = await enter(
            living(
                folder,
                clock=CLOCK,
                engine=engine,
                the_role=the_role,
                policy_version=lambda: policies.current.version,
                seal=seal,
                points=points,
            )
        )
        gate = _gate(house, policies, authority)
        found = Doors(house, gate, authority, folder / "broker.sock", folder / "targets")
        feed, operators = await _loops(stack, house), KnownOperators()
        door = Door(gate=gate, feed=feed, operators=operators, reload_targets=found.reload)
        outside = application(ROUTES, identify=by_certificate, recheck=still(CLOCK, house.world.observer, operators))
        inside = application(ROUTES, identify=by_socket)
        outside[DOOR] = inside[DOOR] = door
        context = server_context(found.material("/sojourn/broker", instance=None), refused=found.refused.append)
        await enter(listen_unix(inside, found.socket, allow_uids={os.geteuid()}, drain=0.1))
        host, port = await enter(listen(outside, host="127.0.0.1", port=0, ssl=context, drain=0.1, crowd=crowd))
        found.url = f"https://{host}:{port}"
        yield found


def _gate(house: House, policies: PolicyHolder, authority: TestAuthority) -> Gate:
    limits = Limits(
        longest_task=timedelta(hours=12),
        longest_heartbeat=timedelta(minutes=10),
        deepest_tree=8,
        most_live_tasks=100,
    )
    return Gate(
        world=house.world,
        policies=policies,
        proofs=Proofs(),
        limits=limits,
        metrics=Metrics(),
        trust_domain=authority.trust_domain,
    )


async def _loops(stack: AsyncExitStack, house: House) -> Feed:
    world, feed = house.world, Feed(house.world.database)
    await feed.tick(CLOCK.now())
    rows = (("feed", feed.tick, world.feed), ("reaper", house.reaper.tick, world.reaper))
    for name, tick, wake in rows:
        await stack.enter_async_context(background(name, tick, every=0.5, clock=CLOCK, wake=wake))
    return feed
