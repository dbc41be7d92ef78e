"""The attestor server: its composition root. Read top to bottom it is the order of the start, backwards of the stop.

async with serve(settings, clock, readiness) as server:
    token = await server.issue_token("web-1", timedelta(minutes=10))
    await until_stopped()
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from attestor.errors import BadRules
from attestor.methods.node.join_token import JoinToken
from attestor.server.admin_api import AdminApi
from attestor.server.admission import Admission
from attestor.server.changes import Changes
from attestor.server.direct import Direct
from attestor.server.direct_api import DirectApi
from attestor.server.dry_run import DryRun
from attestor.server.federation import Federation, Follower, followers
from attestor.server.gauges import Gauges
from attestor.server.instances import Instances
from attestor.server.issuance.leaves import Leaves
from attestor.server.issuance.own import OwnSvid
from attestor.server.issuance.personal import Personal
from attestor.server.issuance.workloads import Workloads
from attestor.server.node_api import BURST, PER_SECOND, NodeApi
from attestor.server.node_checks import NodeChecks
from attestor.server.platforms import Platforms, open_platforms
from attestor.server.public_api import PublicApi
from attestor.server.risks import Risks
from attestor.server.rule_hold import RuleHold
from attestor.server.rule_source import RuleSource
from attestor.server.settings import Listen, ServerSettings
from attestor.server.store import MIGRATIONS
from attestor.server.task_api import TaskApi
from attestor.server.task_identity import TaskIdentities
from attestor.server.token_keys import TokenKeys
from attestor.server.web_certificate import WebCertificate
from attestor.wire.node import NODE_PATH
from ca.authority import Authority
from ca.errors import Problem
from ca.revocation import Lists
from ca.rotation import Rotation, open_authority
from ca.runtime import grpc, log, web
from ca.runtime.bell import open_bell
from ca.runtime.clock import Clock
from ca.runtime.crowd import Crowd
from ca.runtime.database import Database, migrate, open_database
from ca.runtime.document import BadSettings
from ca.runtime.health import serve_health
from ca.runtime.metrics import Metrics
from ca.runtime.process import Part, Readiness, Wake, background, take_descriptors
from ca.runtime.rate import Rate
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import TrustDomain
from ca.spiffe.x509svid import X509Peer, check_not_revoked, verify
from ca.tls import OnRefusal, TlsMaterial, public_context, server_context

_log = log.get(__name__)
_REFUSED = frozenset({"untrusted", "revoked", "malformed"})


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers; what whoever started it in this process may ask of it directly."""

    address: tuple[str, int]
    admin_socket: Path
    trust_domain: TrustDomain
    warnings: tuple[str, ...]
    public_address: tuple[str, int] | None
    web_address: tuple[str, int] | None
    _parts: _Parts

    @property
    def root_key_hash(self) -> str:
        """What a node that joins is told to expect."""
        return self._parts.authority.root_key_hash(self._parts.clock.now())

    async def issue_token(self, node: str | None, ttl: timedelta = timedelta(minutes=10)) -> JoinToken:
        """A join token, without a detour over the admin socket."""
        return (await self._parts.admission.issue_token(node, ttl, self._parts.clock.now())).token


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a server is made of."""

    settings: ServerSettings
    clock: Clock
    metrics: Metrics
    database: Database
    authority: Authority
    rotation: Rotation
    rules: RuleSource
    hold: RuleHold
    changes: Changes
    instances: Instances
    leaves: Leaves
    lists: Lists
    workloads: Workloads
    task_identities: TaskIdentities
    admission: Admission
    own: OwnSvid
    direct: Direct
    node_checks: NodeChecks
    federation: Federation
    followers: tuple[Follower, ...]


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
        parts = _assemble(settings, clock, metrics, database, authority, rules, platforms)
        await _until_it_signs(parts, part)
        for each in (parts.lists, parts.own, parts.federation):
            await each.tick(clock.now())
        await _loops(stack, parts)
        server = await _listeners(stack, parts)
        if settings.health is not None:
            await stack.enter_async_context(
                serve_health(readiness, parts.metrics, settings.health.host, settings.health.port)
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


def _assemble(  # noqa: PLR0917 - what was opened, in the order in which it was
    settings: ServerSettings,
    clock: Clock,
    metrics: Metrics,
    database: Database,
    authority: Authority,
    rules: RuleSource,
    platforms: Platforms,
) -> _Parts:
    changes, leaves = Changes(), Leaves(authority, database)
    lists = Lists(authority, pause=settings.revocation.pause)
    instances = Instances(
        database,
        changes,
        grace=settings.observe_grace,
        limit=settings.observe_limit,
        let_expire=settings.revocation.let_expire,
        revoked=lists.due.set,
    )
    admission = Admission(
        database, leaves, instances, changes, metrics, node_ttl=settings.lives.node, verifiers=platforms.verifiers
    )
    personal = Personal(database, settings.trust_domain, settings.confirm_grace)
    federation = Federation(
        database=database, authority=authority, endpoints=[one.endpoint() for one in settings.federation]
    )
    for source in (rules, authority, lists, federation):
        source.subscribe(changes.notify)
    return _Parts(
        settings=settings,
        clock=clock,
        metrics=metrics,
        database=database,
        authority=authority,
        rotation=Rotation(authority),
        rules=rules,
        hold=RuleHold(rules, DryRun(database, rules), settings.hold_rules_over),
        changes=changes,
        instances=instances,
        leaves=leaves,
        lists=lists,
        workloads=Workloads(database, leaves, rules, instances, metrics, platforms.pods, personal),
        task_identities=TaskIdentities(database, settings.trust_domain, instances),
        admission=admission,
        node_checks=NodeChecks(database, admission, platforms.checks),
        direct=Direct(
            database=database,
            leaves=leaves,
            rules=rules,
            instances=instances,
            platforms=platforms.direct,
            token_keys=TokenKeys(database, Risks(database, metrics)),
            metrics=metrics,
            started=clock.now(),
        ),
        own=OwnSvid(leaves, settings.lives.node, lambda: lists.revocations),
        federation=federation,
        followers=followers(federation, metrics, clock),
    )


async def _until_it_signs(parts: _Parts, part: Part) -> None:
    """A server that comes to others signs nothing before their peers were told of its keys."""
    while not parts.authority.signs(parts.clock.now()):
        part.waiting("the peers of the other servers to be told of this one's authorities")
        await parts.clock.sleep(1.0)
        await parts.rotation.tick(parts.clock.now())


async def _loops(stack: AsyncExitStack, parts: _Parts) -> None:
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


async def _bells(stack: AsyncExitStack, parts: _Parts) -> Wake:
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


async def _listeners(stack: AsyncExitStack, parts: _Parts) -> Server:
    """Everything that can be asked."""
    settings, clock = parts.settings, parts.clock
    node_api = NodeApi(
        admission=parts.admission,
        workloads=parts.workloads,
        instances=parts.instances,
        leaves=parts.leaves,
        lists=parts.lists,
        federation=parts.federation,
        changes=parts.changes,
        clock=clock,
        beat=settings.beat,
        strangers=Rate(clock, burst=BURST, per_second=PER_SECOND),
    )
    task_api = TaskApi(
        trust_domain=settings.trust_domain,
        instances=parts.instances,
        identities=parts.task_identities,
        changes=parts.changes,
        clock=clock,
    )
    address = await stack.enter_async_context(
        grpc.listen_tls(
            (*node_api.methods(), *task_api.methods()),
            host=settings.listen.host,
            port=settings.listen.port,
            ssl=_tls(parts),
            options=grpc.Options(metrics=parts.metrics, crowd=_crowd(parts)),
        )
    )
    public, public_web = await _public(stack, parts)
    await _admin(stack, parts)
    return Server(
        address=address,
        admin_socket=settings.admin_socket,
        trust_domain=settings.trust_domain,
        warnings=(*parts.authority.warnings, *parts.rules.current.warnings),
        public_address=public,
        web_address=public_web,
        _parts=parts,
    )


async def _public(stack: AsyncExitStack, parts: _Parts) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """What anybody may read, where the settings want it: with the server's own SVID, and as a web server."""
    settings, where, web_where = parts.settings, parts.settings.public, parts.settings.public_web
    routes = PublicApi(parts.authority, parts.lists, parts.clock).routes()

    async def listen(at: Listen, material: Callable[[], TlsMaterial], *more: web.Route) -> tuple[str, int]:
        app = web.application((*routes, *more), metrics=parts.metrics)
        context = public_context(material, on_refusal=_refused(parts), alpn=["http/1.1"])
        return await stack.enter_async_context(
            web.listen(app, host=at.host, port=at.port, ssl=context, crowd=_crowd(parts))
        )

    more = DirectApi(parts.direct, parts.clock).routes() if settings.direct else ()
    found = None if where is None else await listen(where, parts.own.material, *more)
    if web_where is None:
        return found, None
    return found, await listen(web_where, WebCertificate(web_where.certificate, web_where.key).material)


def _crowd(parts: _Parts) -> Crowd:
    """The places of one listener that strangers reach."""
    return Crowd(parts.settings.limits.connections, listeners=parts.settings.listeners, metrics=parts.metrics)


async def _admin(stack: AsyncExitStack, parts: _Parts) -> None:
    api = AdminApi(
        admission=parts.admission,
        instances=parts.instances,
        rules=parts.rules,
        hold=parts.hold,
        authority=parts.authority,
        rotation=parts.rotation,
        lists=parts.lists,
        database=parts.database,
        risks=Risks(parts.database, parts.metrics),
        federation=parts.federation,
        followers=parts.followers,
        clock=parts.clock,
    )
    path, more = parts.settings.admin_socket, parts.settings.admin_uids
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    app = web.application(api.routes(), metrics=parts.metrics)
    mode = 0o666 if more else 0o600  # with others allowed it is the kernel's word about their uid that decides
    await stack.enter_async_context(web.listen_unix(app, path, mode=mode, allow_uids={os.getuid(), *more}))


def _tls(parts: _Parts) -> ssl.SSLContext:
    def judge(chain: Sequence[bytes]) -> X509Peer:
        now = parts.clock.now()
        peer = verify(chain, BundleSet.of(parts.authority.bundle(now)), now)
        if not peer.id.path.startswith(NODE_PATH):  # a node is told why by its first call, and attests anew (traps 38)
            check_not_revoked(peer.chain, peer.id, parts.lists.revocations)
        return peer

    return server_context(parts.own.material, judge, on_refusal=_refused(parts), client_certificate=False, alpn=["h2"])


def _refused(parts: _Parts) -> OnRefusal:
    def refused(problem: Problem) -> None:
        reason = problem.code if problem.code in _REFUSED else "other"
        parts.metrics.count("sojourn_handshakes_refused_total", reason=reason)
        _log.warning("handshake refused", error=problem)

    return refused
