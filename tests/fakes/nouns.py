"""Values of the broker's model as tests need them: whole, plain, and changed by naming what matters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.model.act import Act, Action
from broker.model.caller import Workload
from broker.model.ids import InstanceId, new_lease, new_task
from broker.model.lease import Handle, Lease, LeaseState
from broker.model.observed import Observation
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from broker.model.scope import Scope, Sensitivity, patterns
from broker.model.task import Task, TaskState
from broker.policy.facts import Facts
from ca.spiffe.id import SpiffeId, TrustDomain

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DOMAIN = TrustDomain.parse("example.org")
BILLING = SpiffeId.parse("spiffe://example.org/agents/billing")
INSTANCE = InstanceId("0123456789abcdef" * 2)

AT_ONCE = Guarantee(
    new_access=NewAccess.AT_ONCE,
    new_access_within=1,
    open_sessions=OpenSessions.CUT,
    open_sessions_within=1,
    if_down=IfDown.TARGET_ENDS_IT,
    if_down_within=60,
)


def scope(*roles: str, **changed: Any) -> Scope:
    """A scope that reaches `roles`, up to the highest sensitivity."""
    return replace(Scope(roles=patterns(roles), sensitivity=Sensitivity.RESTRICTED), **changed)


def task(above: Task | None = None, **changed: Any) -> Task:
    """An active task, a root or a child of `above`."""
    name = new_task(NOW)
    made = Task(
        id=name,
        root=name if above is None else above.root,
        parent=None if above is None else above.id,
        state=TaskState.ACTIVE,
        version=1,
        owner=BILLING,
        instance=INSTANCE,
        purpose="reconcile november",
        scope=scope("*"),
        opened_at=NOW,
        deadline=NOW + timedelta(hours=1),
        heartbeat=None,
        heard_at=NOW,
    )
    return replace(made, **changed)


def role(name: str = "orders-db/readonly", **changed: Any) -> Role:
    """A role for internal data."""
    target, _, own = name.partition("/")
    made = Role(
        target=target,
        name=own,
        engine="postgres",
        sensitivity=Sensitivity.INTERNAL,
        ttl=timedelta(minutes=1),
        longest=timedelta(hours=1),
        ack_within=timedelta(seconds=30),
    )
    return replace(made, **changed)


def lease(of: Task, **changed: Any) -> Lease:
    """An active lease of the task `of`."""
    made = Lease(
        id=new_lease(NOW),
        task=of.id,
        task_version=of.version,
        role="orders-db/readonly",
        handle=Handle(target="orders-db", engine="postgres", name="sj_12345678_abcdef"),
        guarantee=AT_ONCE,
        state=LeaseState.ACTIVE,
        version=2,
        generation=1,
        intended_at=NOW,
        until=NOW + timedelta(minutes=1),
        last=NOW + timedelta(hours=1),
        ack_by=NOW + timedelta(seconds=30),
        due_at=NOW + timedelta(seconds=30),
        broker="broker-1",
        activated_at=NOW,
    )
    return replace(made, **changed)


def caller(identity: SpiffeId = BILLING) -> Workload:
    """A workload that showed its SVID."""
    return Workload(id=identity, instance=INSTANCE, not_after=NOW + timedelta(hours=1))


def obtain(name: str = "orders-db/readonly", **changed: Any) -> Act:
    """The act of obtaining a role."""
    return replace(Act(action=Action.OBTAIN, resource=name, sensitivity=Sensitivity.INTERNAL), **changed)


def facts(**changed: Any) -> Facts:
    """What is known of a live process with a uid of its own that asks for `orders-db/readonly`."""
    known = Facts(strength="own-uid", observation=Observation.LIVE, trust_domain=DOMAIN, role=role())
    return replace(known, **changed)
