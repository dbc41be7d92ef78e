"""T12: with a full disk nothing is given any more, and everything that must end ends."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestor.instance import State
from attestor.server.admission import Admission
from attestor.server.instances import Instances
from attestor.server.issuance.workloads import Workloads
from attestor.server.pods import PodView
from attestor.server.store.nodes import NodeState
from attestor.wire.node import LiveSet
from broker.errors import Fenced, TargetDown
from broker.model.caller import Operator, Verb
from broker.model.lease import LeaseState
from broker.model.task import TaskState
from broker.service import operators
from broker.service.operators import KnownOperators
from broker.service.proofs import Asked, Shown
from broker.store import operators as operator_store
from ca.errors import Problem
from ca.runtime.database import StoreFull, Transaction
from ca.runtime.metrics import Metrics
from fakes.attestor_parts import GRACE, LIMIT, attestation, parts, wants
from fakes.filling import Filling
from fakes.front import OPERATOR, front
from fakes.world import living


async def test_grants_stop_and_endings_go_on_from_the_reserve(tmp_path: Path) -> None:
    """Every step of an ending is marked as one, so the reserve carries it to its end."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database.inner  # type: ignore[attr-defined]
        task = await house.open()
        handed = await house.held(task)
        store.full = True
        with pytest.raises(StoreFull):
            await house.obtain(task)
        await house.end(task)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKED
        assert not house.engine.target.principals


async def test_a_grant_that_can_not_be_recorded_makes_nothing(tmp_path: Path) -> None:
    """The intent comes first."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database.inner  # type: ignore[attr-defined]
        task = await house.open()
        store.full = True
        with pytest.raises(StoreFull):
            await house.obtain(task)
        assert "create" not in {verb for verb, _ in house.engine.calls}


async def test_a_disk_that_fills_between_intent_and_activation_gives_nothing(tmp_path: Path) -> None:
    """What was made and can't be recorded as given is taken back."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database.inner  # type: ignore[attr-defined]
        task = await house.open()
        made = house.engine.create

        async def create(*arguments: Any) -> Any:
            issued = await made(*arguments)
            store.full, store.reserve = True, False
            return issued

        house.engine.create = create
        with pytest.raises(StoreFull):
            await house.obtain(task)
        assert not any(principal.enabled for principal in house.engine.target.principals.values())


async def test_an_end_that_can_not_even_be_recorded_ends_access_all_the_same(tmp_path: Path) -> None:
    """Sessions are cut and logins refused now; the record follows when there is room, and nothing was given between."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database.inner  # type: ignore[attr-defined]
        task = await house.open()
        child = await house.open(task)
        handed, below = await house.held(task), await house.held(child)
        session = await house.engine.target.login(handed.issued)
        store.full, store.reserve = True, False
        assert {ended.id for ended in await house.end(task)} == {task.id, child.id}
        assert not await session.answers()
        assert await house.engine.target.login(handed.issued) is None
        assert await house.engine.target.login(below.issued) is None
        store.full = False
        for refused in (task, child):
            with pytest.raises(Fenced):
                await house.obtain(refused)
        await house.reap()
        assert (await house.task(task.id)).state is TaskState.DONE
        assert (await house.task(child.id)).state is TaskState.CANCELLED
        assert {lease.state for lease in await house.leases()} == {LeaseState.REVOKED}
        assert not house.world.unrecorded


async def test_a_lease_that_must_end_is_ended_before_it_is_recorded(tmp_path: Path) -> None:
    """The reaper does not wait for room either."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database.inner  # type: ignore[attr-defined]
        handed = await house.obtain(await house.open())
        store.full, store.reserve = True, False
        await house.clock.advance(31)  # nobody acknowledged it
        with contextlib.suppress(Problem):
            await house.reap()
        assert await house.engine.target.login(handed.issued) is None


async def test_an_ending_that_is_put_off_is_put_off_from_the_reserve(tmp_path: Path) -> None:
    """Full disk and dead target together: it is tried again later, and not forgotten."""
    async with living(tmp_path, wrap=Filling) as house:
        store: Any = house.world.database.inner  # type: ignore[attr-defined]
        task = await house.open()
        handed = await house.held(task)
        store.full = True
        house.engine.fail("end_access", error=TargetDown("nobody is there"))
        await house.end(task)
        await house.reap()
        lease = await house.lease(handed.lease.id)
        assert (lease.state, lease.attempts) == (LeaseState.REVOKING, 1)
        await house.clock.advance(60)
        await house.reap()
        assert (await house.lease(handed.lease.id)).state is LeaseState.REVOKED


async def test_an_operator_is_removed_although_nobody_can_be_added(tmp_path: Path) -> None:
    """Taking verbs away is an ending too."""
    async with front(tmp_path, wrap=Filling) as house:
        store: Any = house.house.world.database.inner  # type: ignore[attr-defined]
        asked = Asked(caller=OPERATOR, shown=Shown(header=None, method="", path=""), now=house.clock.now())
        known = KnownOperators()

        async def write(tx: Transaction) -> None:
            eve = Operator(name="eve", verbs=frozenset({Verb.READ_TASKS}))
            await operator_store.add(tx, eve, certificate(), OPERATOR.name, house.clock.now())

        await store.write(write)
        store.full = True
        await operators.remove(house.gate, asked, "eve", known)
        assert not await operators.listed(house.gate, asked)


async def test_the_attestor_ends_instances_and_sends_nodes_away_from_the_reserve(tmp_path: Path) -> None:
    """By a live set, by silence, by an operator; and meanwhile nothing is signed."""
    rules = 'rules: [{name: a, nodes: ["node:*"], when: ["unix:uid:7"], spiffe_id: /a}]'
    async with parts(tmp_path, rules) as server:
        store: Any = Filling(server.database)
        now = server.clock.now
        instances = Instances(store, server.changes, grace=GRACE, limit=LIMIT)
        workloads = Workloads(
            store,
            server.leaves,
            server.rules,
            instances,
            Metrics(),
            PodView({}, server.clock),
            server.workloads.personal,
        )
        admission = Admission(store, server.leaves, instances, server.changes, Metrics(), node_ttl=LIMIT)
        node, other = await server.join("n"), await server.join("o")
        by_set, by_silence, by_word = (attestation("unix:uid:7") for _ in range(3))
        await workloads.sign(node, [wants("/a", by_set), wants("/a", by_silence)], now())
        await workloads.sign(other, [wants("/a", by_word)], now())
        store.full = True
        with pytest.raises(StoreFull):
            await workloads.sign(node, [wants("/a", attestation("unix:uid:7"))], now())
        alive = LiveSet(counter=2, instances=frozenset({by_silence.instance}))
        await instances.report(node, alive, now())
        assert await instances.state(by_set.instance) is State.ENDED
        await admission.send_away("o", NodeState.BANNED, now())
        assert await instances.state(by_word.instance) is State.ENDED
        for seconds, state in ((16, State.UNOBSERVED), (46, State.ENDED)):
            await server.clock.advance(seconds)
            await instances.tick(now())
            assert await instances.state(by_silence.instance) is state


def certificate() -> bytes:
    """An operator's."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
