"""The attestor server: its composition root. Read top to bottom it is the order of the start, backwards of the stop.

async with serve(settings, clock, readiness) as server:
    token = await server.issue_token("web-1", timedelta(minutes=10))
    await until_stopped()
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from attestor.errors import BadRules
from attestor.methods.node.join_token import JoinToken
from attestor.server.gauges import Gauges
from attestor.server.listeners import open_listeners
from attestor.server.parts import Parts, assemble
from attestor.server.platforms import open_platforms
from attestor.server.rule_source import RuleSource
from attestor.server.settings import ServerSettings
from attestor.server.store import MIGRATIONS
from ca.rotation import open_authority
from ca.runtime import log
from ca.runtime.bell import open_bell
from ca.runtime.clock import Clock
from ca.runtime.database import migrate, open_database
from ca.runtime.document import BadSettings
from ca.runtime.health import serve_health
from ca.runtime.metrics import Metrics
from ca.runtime.process import Part, Readiness, Wake, background, take_descriptors
from ca.spiffe.id import TrustDomain

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers; what whoever started it in this process may ask of it directly."""

    address: tuple[str, int]
    admin_socket: Path
    trust_domain: TrustDomain
    warnings: tuple[str, ...]
    public_address: tuple[str, int] | None
    web_address: tuple[str, int] | None
    _parts: Parts

    @property
    def root_key_hash(self) -> str:
        """What a node that joins is told to expect."""
        return self._parts.authority.root_key_hash(self._parts.clock.now())

    async def issue_token(self, node: str | None, ttl: timedelta = timedelta(minutes=10)) -> JoinToken:
        """A join token, without a detour over the admin socket."""
        return (await self._parts.admission.issue_token(node, ttl, self._parts.clock.now())).token


@asynccontextmanager
async def serve(
    settings: ServerSettings, clock: Clock, readiness: Readiness, metrics: Metrics | None = None
) -> AsyncIterator[Server]:
    """Ready when entered, gone when left.

    Raises:
        BadSettings: the rules, or where keys rest, can't be used.
        StoreLocked: another server has this store.
    """
    metrics, part = metrics or Metrics(), readiness.part("attestor server")
    rules = _rules(settings)  # first: what can't be meant is refused before anything is made
    take_descriptors()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings.database, metrics=metrics))
        await migrate(database, "attestor.server", MIGRATIONS)
        keys = await settings.keys.open_store(await settings.keys.open_seal())
        root = settings.upstream.upstream() if settings.upstream else None
        authority = await stack.enter_async_context(open_authority(settings.authority(), database, keys, clock, root))
        platforms = await stack.enter_async_context(open_platforms(settings, clock, metrics))
        parts = assemble(settings, clock, metrics, database, authority, rules, platforms)
        await _until_it_signs(parts, part)
        for each in (parts.lists, parts.own, parts.federation):
            await each.tick(clock.now())
        await _loops(stack, parts)
        heard = await open_listeners(stack, parts)
        if settings.health is not None:
            await stack.enter_async_context(
                serve_health(readiness, parts.metrics, settings.health.host, settings.health.port)
            )
        server = Server(
            address=heard.address,
            admin_socket=settings.admin_socket,
            trust_domain=settings.trust_domain,
            warnings=(*parts.authority.warnings, *parts.rules.current.warnings),
            public_address=heard.public_address,
            web_address=heard.web_address,
            _parts=parts,
        )
        part.ready()
        _log.info("attestor server ready", address=server.address, trust_domain=str(server.trust_domain))
        yield server
        part.waiting("its stop")


def _rules(settings: ServerSettings) -> RuleSource:
    try:
        owners = [(one.owner(), one.rules) for one in settings.rule_owners]
        return RuleSource(settings.rules, settings.terms(), settings.own_rules(), owners)
    except BadRules as error:
        raise BadSettings(error.errors) from error


async def _until_it_signs(parts: Parts, part: Part) -> None:
    """A server that comes to others signs nothing before their peers were told of its keys."""
    while not parts.authority.signs(parts.clock.now()):
        part.waiting("the peers of the other servers to be told of this one's authorities")
        await parts.clock.sleep(1.0)
        await parts.rotation.tick(parts.clock.now())


async def _loops(stack: AsyncExitStack, parts: Parts) -> None:
    """Everything that is due by itself."""
    woken, clock = Wake(), parts.clock
    parts.authority.subscribe(woken.set)
    parts.lists.subscribe(woken.set)
    reload = await _bells(stack, parts)

    gauges = Gauges(
        metrics=parts.metrics,
        database=parts.database,
        instances=parts.instances,
        rules=parts.rules,
        authority=parts.authority,
        lists=parts.lists,
        federation=parts.federation,
    )
    for name, tick, every, wake in (
        ("rotation", parts.rotation.tick, 2.0, reload),
        ("own svid", parts.own.tick, 5.0, woken),
        ("revocation lists", parts.lists.tick, 1.0, parts.lists.due),
        ("rules", parts.hold.tick, 1.0, None),
        ("instances", parts.instances.tick, 1.0, None),
        ("task identities", parts.task_identities.tick, 1.0, None),
        ("direct", parts.direct.tick, 2.0, None),
        ("foreign bundles", parts.federation.tick, 2.0, parts.federation.changed),
        *(("bundle endpoint", one.tick, 1.0, one.wake) for one in parts.followers),
        ("node checks", parts.node_checks.tick, 10.0, None),
        ("beat", parts.changes.beat, parts.settings.beat.total_seconds(), None),
        ("gauges", gauges.tick, 5.0, None),
    ):
        await stack.enter_async_context(background(name, tick, every=every, clock=clock, wake=wake))


async def _bells(stack: AsyncExitStack, parts: Parts) -> Wake:
    """Hear other servers over this store, and be heard; what is answered is set when an authority may have changed."""
    reload = Wake()

    def changed() -> None:
        parts.lists.due.set()
        parts.changes.wake()

    parts.changes.tell_others = await stack.enter_async_context(
        open_bell(parts.database, "changes", changed, parts.clock)
    )
    parts.authority.subscribe(
        await stack.enter_async_context(open_bell(parts.database, "authorities", reload.set, parts.clock))
    )
    return reload
