"""The gate: who may look at a task, and that a denial is on record before it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import ClockUntrusted, Refused
from broker.model.act import Act, Action
from broker.model.caller import ALL_VERBS, Operator, Verb, Workload
from broker.model.decision import Decision, Effect
from broker.model.ids import new_decision, new_task
from broker.model.observed import Observation, Observed
from broker.model.receipt import ReceiptKind
from broker.model.task import Task, TaskState
from broker.service.gate import refusal
from broker.service.proofs import Asked, Shown
from broker.wire.proof import mint, new_key
from ca.errors import Denied, Malformed, NotFound, Unauthenticated, Unavailable
from fakes.front import DOMAIN, INSTANCE, OTHER, ROLE, Front, front
from fakes.nouns import NOW
from fakes.world import AGENT

MINUTE = timedelta(minutes=1)
LIVE = Observed(state=Observation.LIVE, strength="own-uid")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker."""
    async with front(tmp_path) as found:
        yield found


def asks(house: Front, caller: Workload | Operator, header: str | None = None) -> Asked:
    """A request to look at something."""
    return Asked(caller=caller, shown=Shown(header=header, method="GET", path="/"), now=house.clock.now())


async def family(house: Front) -> tuple[Task, Task, Task]:
    """A task of one process, one below it of another, and one below that of no process."""
    top = await house.house.open(instance=INSTANCE)
    middle = await house.house.open(top, instance=OTHER)
    return top, middle, await house.house.open(middle)


async def test_an_operator_looks_by_its_verb(house: Front) -> None:
    """Without it nobody looks; what is not there is not found."""
    top, middle, bottom = await family(house)
    reader = Operator(name="eve", verbs=frozenset({Verb.READ_TASKS}))
    assert await house.gate.readable(asks(house, reader), bottom.id) == (top, middle, bottom)
    other = Operator(name="bob", verbs=ALL_VERBS - {Verb.READ_TASKS})
    with pytest.raises(Denied):
        await house.gate.readable(asks(house, other), bottom.id)
    with pytest.raises(NotFound):
        await house.gate.readable(asks(house, reader), new_task(NOW))


async def test_a_process_looks_down_its_own_tree_and_no_other_way(house: Front) -> None:
    """Down to the bottom; neither up, nor beside, nor as nobody; in the words of a task that is not there."""
    top, middle, bottom = await family(house)
    above, below = house.agent(AGENT.path), house.agent(AGENT.path, instance=OTHER)
    for task, chain in ((top, (top,)), (middle, (top, middle)), (bottom, (top, middle, bottom))):
        assert await house.gate.readable(asks(house, above), task.id) == chain
    assert await house.gate.readable(asks(house, below), middle.id) == (top, middle)
    assert await house.gate.readable(asks(house, below), bottom.id) == (top, middle, bottom)
    beside = await house.house.open(instance=INSTANCE)
    foreign = replace(above, id=AGENT.parse("spiffe://foreign.test/agent"))
    for caller, task in (
        (below, top),
        (below, beside),
        (foreign, bottom),
        (house.agent(AGENT.path, instance=None), top),
        (house.agent(AGENT.path, instance=None), bottom),
    ):
        with pytest.raises(NotFound) as refused:
            await house.gate.readable(asks(house, caller), task.id)
        with pytest.raises(NotFound) as missing:
            await house.gate.readable(asks(house, caller), new_task(NOW))
        assert type(refused.value) is type(missing.value)


async def test_a_key_looks_at_its_own_task(house: Front) -> None:
    """The proof is good once, and opens nothing above."""
    key = new_key()
    top = await house.house.open(instance=INSTANCE)
    own = await house.house.open(top, key=key.thumbprint())
    caller = house.agent(AGENT.path, instance=None)
    header = mint(key, "GET", "/", house.clock.now())
    assert await house.gate.readable(asks(house, caller, header), own.id) == (top, own)
    with pytest.raises(Unauthenticated):
        await house.gate.readable(asks(house, caller, header), own.id)
    with pytest.raises(NotFound):
        await house.gate.readable(asks(house, caller, mint(key, "GET", "/", house.clock.now())), top.id)
    with pytest.raises(Unauthenticated):
        await house.gate.readable(asks(house, caller, "no proof"), own.id)


async def test_a_denial_is_on_record_before_it_is_told(house: Front) -> None:
    """Who asked for what, for which task, and who refused; a request of no task is on record too."""
    task = await house.house.open(instance=INSTANCE)
    chain = await house.gate.readable(asks(house, house.agent(AGENT.path)), task.id)
    act = Act(action=Action.OBTAIN, resource="orders-db/secret", destination="mail")
    caller = house.agent(AGENT.path)
    with pytest.raises(Refused) as refused:
        await house.gate.permit(caller, chain, act, house.gate.facts(LIVE), house.clock.now())
    (entry,) = await house.house.receipts()
    said = entry.receipt
    assert (said.kind, said.actor, said.task) == (ReceiptKind.DECIDED, str(caller), task.id)
    assert (said.body["resource"], said.body["destination"]) == ("orders-db/secret", "mail")
    assert (said.body["effect"], said.body["decision"]) == ("deny", refused.value.details["decision"])
    decision = Decision(
        id=new_decision(NOW), effect=Effect.DENY, policies=(), reason="no", policy_version="v", decided_at=NOW
    )
    await house.gate.record_denial(caller, None, act, decision)
    first, second = await house.house.receipts()
    assert (second.receipt.task, second.receipt.actor, second.writer) == (None, str(caller), first.writer)
    assert first.writer == house.house.world.broker


@pytest.mark.parametrize(
    ("policies", "nearest", "said"),
    [
        ((), (), ("none permits it", "no single change")),
        (("one", "two"), ("a task of less", "another role"), ("one, two", "a task of less; another role")),
    ],
)
def test_a_refusal_says_who_refused_and_what_would_do(
    policies: tuple[str, ...], nearest: tuple[str, ...], said: tuple[str, str]
) -> None:
    """The agent is told the decision's own reason, its id, the policies, and the smallest change."""
    decision = Decision(
        id=new_decision(NOW),
        effect=Effect.DENY,
        policies=policies,
        reason="readers may not write",
        policy_version="v",
        decided_at=NOW,
        nearest=nearest,
    )
    refused = refusal(decision)
    assert str(refused) == "readers may not write"
    assert refused.details == {"decision": decision.id, "policies": said[0], "nearest": said[1]}


async def test_a_task_is_given_something_while_it_and_all_above_live(house: Front) -> None:
    """Until its deadline and until its third missed beat, not at them; by each task of its chain."""
    now = house.clock.now()
    top = replace(await house.house.open(deadline=now + MINUTE), heartbeat=timedelta(seconds=10))
    task = await house.house.open(top, instance=INSTANCE)
    gate, moment = house.gate, timedelta(microseconds=1)
    assert gate.usable((top, task), now) == LIVE
    assert gate.usable((replace(top, instance=None),), now) == Observed(state=Observation.UNKNOWN, strength="none")
    due, silent = replace(top, heartbeat=None), replace(top, deadline=None)
    for above, last in ((due, now + MINUTE), (silent, now + timedelta(seconds=30))):
        assert gate.usable((above, task), last - moment) == LIVE
        with pytest.raises(Denied):
            gate.usable((above, task), last)
    for chain in (
        (replace(top, ended_at=now, state=TaskState.DONE), task),
        (top, replace(task, ended_at=now, state=TaskState.DONE)),
        (top, replace(task, state=TaskState.WAITING)),
        (top, replace(task, state=TaskState.PROPOSED)),
    ):
        with pytest.raises(Denied):
            gate.usable(chain, now)


@pytest.mark.parametrize("state", sorted(set(Observation) - {Observation.LIVE}))
async def test_a_process_that_is_not_seen_to_live_is_given_nothing(house: Front, state: Observation) -> None:
    """Whatever else is known of it."""
    task = await house.house.open(instance=INSTANCE)
    house.house.observer.states[INSTANCE] = state
    with pytest.raises(Denied):
        house.gate.usable((task,), house.clock.now())


@pytest.mark.parametrize("state", sorted(set(Observation) - {Observation.LIVE}))
async def test_nor_is_a_child_of_such_a_process(house: Front, state: Observation) -> None:
    """Liveness is derived up to the root: what would not be renewed is not given either."""
    chain = await family(house)
    assert house.gate.usable(chain, house.clock.now()).state is Observation.UNKNOWN
    house.house.observer.states[INSTANCE] = state
    for depth in (1, 2, 3):
        with pytest.raises(Denied):
            house.gate.usable(chain[:depth], house.clock.now())


async def test_a_broker_that_stops_or_doubts_its_clock_gives_nothing(house: Front) -> None:
    """To nobody, whatever the task."""
    task = await house.house.open()
    house.clock.step_wall(timedelta(seconds=30))
    with pytest.raises(ClockUntrusted):
        house.gate.usable((task,), house.clock.now())
    house.gate.stopping.set()
    with pytest.raises(Unavailable):
        house.gate.usable((task,), house.clock.now())


async def test_a_role_that_leaves_is_for_who_has_it(house: Front) -> None:
    """Nobody else gets it; one nobody knows is no role."""
    gate = house.gate
    assert gate.role(ROLE) == house.house.role
    leaving = replace(gate, world=replace(gate.world, leaving={ROLE}))
    assert leaving.role(ROLE, held=True) == house.house.role
    with pytest.raises(Denied):
        leaving.role(ROLE)
    for held in (False, True):
        with pytest.raises(Malformed):
            leaving.role("orders-db/other", held=held)


async def test_what_policies_are_told_is_what_we_vouch_for(house: Front) -> None:
    """The observation, its strength, our trust domain, the role, and every role there is."""
    facts = house.gate.facts(LIVE, house.house.role)
    assert (facts.observation, facts.strength, facts.role) == (Observation.LIVE, "own-uid", house.house.role)
    assert (facts.trust_domain, tuple(facts.roles)) == (DOMAIN, (house.house.role,))
