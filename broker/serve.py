"""The broker's process, read from top to bottom: what is entered first is left last.

    store ▸ identity ▸ link to the attestor server ▸ targets ▸ policies ▸ world ▸ feed and loops ▸ doors

On the way down the doors close first, then the loops, then what they stand on: a hand-over under way is finished or
withdrawn, never dropped.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path

from attestor.client.chosen import ChosenIdentity
from attestor.client.source import X509Material, X509Source
from attestor.client.task_identities import TaskIdentities
from attestor.client.tasks import TaskLink
from attestor.client.tls import server_context
from attestor.client.tokens import OwnTokens
from broker.api import ROUTES
from broker.api.door import DOOR, Door
from broker.api.identify import by_certificate, by_socket, still
from broker.engines import svid
from broker.engines.protocol import Lent
from broker.lifecycle import end_task
from broker.lifecycle.configured import Configuration, Configured, open_configured
from broker.lifecycle.reload import Reloading
from broker.lifecycle.world import World, open_world
from broker.loops import incarnations
from broker.loops.incarnations import Incarnations
from broker.model.lease import Lease
from broker.model.observed import Observer, Unobserving
from broker.model.task import EndReason
from broker.policy.source import PolicyHolder, PolicySource
from broker.reconcilers import reconciling
from broker.service.gate import Gate, Limits
from broker.service.observing import LinkObserver
from broker.service.operators import KnownOperators
from broker.service.proofs import Proofs
from broker.service.targets import Reload
from broker.settings import BrokerSettings
from broker.store import leases, tasks
from broker.store.keys import KeysInStore
from broker.store.sealed import Sealed, open_sealed
from ca.keys.protocol import KeyStore
from ca.runtime import log
from ca.runtime.bell import SharedWake
from ca.runtime.clock import Clock
from ca.runtime.crowd import Crowd
from ca.runtime.database import Database, migrate, open_database
from ca.runtime.health import serve_health
from ca.runtime.metrics import Metrics
from ca.runtime.past import chronicle
from ca.runtime.places import make
from ca.runtime.process import Readiness, background, take_descriptors
from ca.runtime.watch import watch_file
from ca.runtime.web import application, listen, listen_unix
from ca.seal import Seal

_log = log.get(__name__)

_TELL_EVERY = 5.0
"""Seconds between two words on what a stop waits for."""

_ENDED_SINCE = timedelta(days=7)
"""For how long back processes that ended are remembered at a start; no leaf lives as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningBroker:
    """A broker that answers; `address` is where agents reach it."""

    address: tuple[str, int]
    admin_socket: Path
    gate: Gate
    configured: Configured

    async def end_tasks(
        self, reason: EndReason, words: str | None = None, *, opened_before: datetime | None = None
    ) -> int:
        """End every live task, or those that were opened before a moment; answers how many this call ended."""
        world, ended = self.gate.world, 0
        for one in await world.database.read(tasks.live):
            meant = opened_before is None or one.opened_at < opened_before
            if meant and one.id not in world.unrecorded:
                now = world.clock.now()
                ended += len(await end_task.end(world, one.id, reason=reason, words=words, now=now))
        return ended

    async def end_everything(self, reason: EndReason) -> int:
        """Give nothing any more, end every live task, and return when nothing of them is left outside.

        It waits for as long as a target does not answer, and says so: whoever can't wait kills the process, and the
        next start goes on where this one was. Answers how many tasks there were.
        """
        self.gate.stopping.set()
        world, ended, told_at = self.gate.world, await self.end_tasks(reason), self.gate.world.clock.boot()
        while await self._open(1):  # reading them all each time would cost more than ending them
            if world.clock.boot() - told_at >= _TELL_EVERY:
                told_at, left = world.clock.boot(), await self._open(1000)
                targets = ", ".join(sorted({lease.handle.target for lease in left}))
                _log.warning("waiting until access is gone", leases=len(left), targets=targets)
            world.reaper.set()
            await world.clock.sleep(0.05)
            ended += await self.end_tasks(reason)
        return ended

    async def _open(self, most: int) -> Sequence[Lease]:
        database = self.gate.world.database
        return await database.read(lambda tx: leases.page(tx, after=None, limit=most, open_only=True))


@asynccontextmanager
async def serve(
    settings: BrokerSettings, clock: Clock, readiness: Readiness, *, restored: bool = False
) -> AsyncIterator[RunningBroker]:
    """A whole broker; ready when entered, gone when left. Of a store that was `restored` another life begins.

    Raises:
        BadSettings, BadPolicy, Malformed: something the operator said can't be meant.
        StoreLocked: another broker holds the store.
    """
    take_descriptors()
    part = readiness.part("broker")  # from the start: with an identity alone nobody is let in yet
    async with AsyncExitStack() as stack:
        enter, metrics = stack.enter_async_context, Metrics()
        if settings.health is not None:
            await enter(serve_health(readiness, metrics, settings.health.host, settings.health.port))
        database = await enter(open_database(settings.database, metrics=metrics))
        await migrate(database, "broker", files("broker.migrations"))
        source = await enter(_identity(settings, clock, readiness))
        observer, link = await _observer(stack, settings, source, database, clock)
        identities = None if link is None else TaskIdentities(link.link)
        configured = await enter(open_configured(await _lent(stack, settings, database, clock)))
        await configured.become(_wanted(settings, identities))
        lives = Incarnations(database, chronicle(settings.database, database, restored=restored))
        gate = await _gate(stack, settings, clock, database, observer, configured, source, metrics, lives)
        operators = KnownOperators()
        await operators.refresh(database)
        feed = await enter(reconciling(settings, gate, link, lives, operators))
        reload_targets = await _watched(stack, settings, gate, configured, identities)
        door = Door(gate=gate, feed=feed, operators=operators, reload_targets=reload_targets)
        address = await _doors(stack, settings, door, source)
        part.ready()
        _log.info("the broker answers", host=address[0], port=address[1], identity=str(source.svid.id))
        yield RunningBroker(address=address, admin_socket=settings.admin_socket, gate=gate, configured=configured)


async def _lent(stack: AsyncExitStack, settings: BrokerSettings, database: Database, clock: Clock) -> Lent:
    """What engines may use of this process."""
    seal = await settings.keys.open_seal()
    return Lent(
        clock=clock,
        vault=None if seal is None else await open_sealed(database, seal, clock),
        keys=await _keys(settings, database, seal, clock),
        tokens=await stack.enter_async_context(OwnTokens.open(settings.workload_api, settings.identity)),
    )


async def _keys(settings: BrokerSettings, database: Database, seal: Seal | None, clock: Clock) -> KeyStore:
    if settings.keys.store == "database" and seal is not None:
        return KeysInStore(database, seal, clock)
    return await settings.keys.open_store(seal)


@asynccontextmanager
async def _identity(settings: BrokerSettings, clock: Clock, readiness: Readiness) -> AsyncIterator[X509Material]:
    part = readiness.part("identity")
    part.waiting(f"an identity from {settings.workload_api}")
    async with X509Source.open(
        settings.workload_api, clock, waiting=lambda problem: part.waiting(f"{settings.workload_api}: {problem}")
    ) as source:
        material = source if settings.identity is None else ChosenIdentity(source, settings.identity)
        _log.debug("an identity was given", identity=str(material.svid.id))
        part.ready()
        yield material


async def _observer(
    stack: AsyncExitStack, settings: BrokerSettings, source: X509Material, database: Database, clock: Clock
) -> tuple[Observer, LinkObserver | None]:
    if settings.attestor is None:
        return Unobserving(), None
    watched = await database.read(tasks.live_instances)
    link = await stack.enter_async_context(
        TaskLink.open(
            source,
            settings.attestor.host,
            settings.attestor.port,
            others=[(other.host, other.port) for other in settings.attestor.others],
            watched=watched,
        )
    )
    since = clock.now() - _ENDED_SINCE
    observer = LinkObserver(link, await database.read(lambda tx: tasks.ended_instances(tx, since)))
    return observer, observer


async def _gate(  # noqa: PLR0917 - what was opened, in the order in which it was
    stack: AsyncExitStack,
    settings: BrokerSettings,
    clock: Clock,
    database: Database,
    observer: Observer,
    configured: Configured,
    source: X509Material,
    metrics: Metrics,
    lives: Incarnations,
) -> Gate:
    policies = PolicyHolder(PolicySource.of(*settings.policies) if settings.policies else None)
    now, vault = clock.now(), configured.lent.vault
    world: World = await stack.enter_async_context(
        open_world(
            database=database,
            engines=configured.engines,
            targets=configured.targets,
            roles=configured.roles,
            leaving=configured.leaving,
            policy_version=lambda: policies.current.version,
            broker=f"b{secrets.token_hex(8)}",
            installation=await lives.begin(now),
            observer=observer,
            points=settings.points,
            quotas=settings.quotas.to_quotas(),
            clock=clock,
            feed=SharedWake(),
            rotate_every=configured.rotate_every,
            seal=vault.seal if isinstance(vault, Sealed) else None,
        )
    )
    await incarnations.begun(world, now)
    bounds = settings.tasks
    limits = Limits(
        longest_task=bounds.longest,
        longest_heartbeat=bounds.longest_heartbeat,
        deepest_tree=bounds.deepest_tree,
        most_live_tasks=bounds.most_live,
    )
    return Gate(
        world=world,
        policies=policies,
        proofs=Proofs(),
        limits=limits,
        metrics=metrics,
        trust_domain=source.svid.id.trust_domain,
    )


async def _watched(
    stack: AsyncExitStack,
    settings: BrokerSettings,
    gate: Gate,
    configured: Configured,
    identities: TaskIdentities | None,
) -> Reload:
    """Policies and targets are read again when their files change, or at SIGHUP; what is bad changes nothing."""
    clock = gate.world.clock

    async def reload_policies() -> None:
        came = gate.policies.reload(clock.now())
        if came.problem is not None:
            raise came.problem
        if came.changed:
            _log.info("other policies are in force", version=came.version)

    def counted(outcome: str) -> None:
        gate.metrics.count("sojourn_reloads_total", what="settings", outcome=outcome)

    reloading = Reloading(gate.world, configured, lambda: _wanted(settings, identities), counted)

    async def targets_changed() -> None:
        _log.info("targets were read again", changed=", ".join((await reloading.again()).changed))

    for path in settings.policies:
        await stack.enter_async_context(watch_file(path, clock, reload_policies))
    if settings.targets_folder is not None:
        await stack.enter_async_context(watch_file(settings.targets_folder, clock, targets_changed))
    await reload_policies()  # what changed between the first look and the watching
    await stack.enter_async_context(background("held", reloading.tick, every=1.0, clock=clock))
    return reloading.again


async def _doors(stack: AsyncExitStack, settings: BrokerSettings, door: Door, source: X509Material) -> tuple[str, int]:
    world, operators = door.gate.world, door.operators
    outside = application(
        ROUTES,
        identify=by_certificate,
        recheck=still(world.clock, world.observer, operators, lambda: source.revocations),
        metrics=door.gate.metrics,
    )
    inside = application(ROUTES, identify=by_socket, metrics=door.gate.metrics)
    outside[DOOR] = inside[DOOR] = door
    context = server_context(
        source,
        extra_anchors=operators.anchors,
        recognise=operators.recognise,
        refused=lambda _: door.gate.metrics.count("sojourn_handshakes_refused_total", reason="untrusted"),
    )
    uids = {os.geteuid(), *settings.admin_uids}
    if not settings.admin_socket.parent.exists():
        make(settings.admin_socket.parent)
    mode = 0o666 if settings.admin_uids else 0o600  # with others allowed the kernel's word about their uid decides
    await stack.enter_async_context(listen_unix(inside, settings.admin_socket, mode=mode, allow_uids=uids))
    crowd = Crowd(settings.limits.connections, metrics=door.gate.metrics)
    return await stack.enter_async_context(
        listen(outside, host=settings.listen.host, port=settings.listen.port, ssl=context, crowd=crowd)
    )


def _wanted(settings: BrokerSettings, identities: TaskIdentities | None) -> Mapping[str, Configuration]:
    wanted = {
        name: Configuration(
            engine=target.engine,
            roles=target.to_roles(name),
            rotate_every=target.rotate_every,
            bounds=target.calls.to_bounds(),
        )
        for name, target in settings.all_targets().items()
    }
    if identities is not None:
        wanted[svid.TARGET] = Configuration(engine=svid.Settings(identities), roles={})
    return wanted
