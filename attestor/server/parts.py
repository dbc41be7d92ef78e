"""What an attestor server is made of, put together over what was opened."""

from __future__ import annotations

from dataclasses import dataclass

from attestor.server.admission import Admission
from attestor.server.changes import Changes
from attestor.server.direct import Direct
from attestor.server.dry_run import DryRun
from attestor.server.federation import Federation, Follower, followers
from attestor.server.instances import Instances
from attestor.server.issuance.leaves import Leaves
from attestor.server.issuance.own import OwnSvid
from attestor.server.issuance.personal import Personal
from attestor.server.issuance.workloads import Workloads
from attestor.server.node_checks import NodeChecks
from attestor.server.platforms import Platforms
from attestor.server.risks import Risks
from attestor.server.rule_hold import RuleHold
from attestor.server.rule_source import RuleSource
from attestor.server.settings import ServerSettings
from attestor.server.task_identity import TaskIdentities
from attestor.server.token_keys import TokenKeys
from ca.authority import Authority
from ca.revocation import Lists
from ca.rotation import Rotation
from ca.runtime.clock import Clock
from ca.runtime.database import Database
from ca.runtime.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
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


def assemble(  # noqa: PLR0917 - what was opened, in the order in which it was
    settings: ServerSettings,
    clock: Clock,
    metrics: Metrics,
    database: Database,
    authority: Authority,
    rules: RuleSource,
    platforms: Platforms,
) -> Parts:
    """Nothing is started and nothing listens yet."""
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
    return Parts(
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
