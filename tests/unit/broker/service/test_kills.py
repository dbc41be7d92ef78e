"""Kills through the routes: what each reaches, what a dry run leaves alone, who may, and thousands at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.model.caller import ALL_VERBS, Operator, Verb
from broker.model.kill import Kill, Reach
from broker.model.receipt import ReceiptKind
from broker.model.scope import Budget, Scope, Sensitivity
from broker.model.task import EndReason, TaskState
from broker.store import kills, tasks
from ca.spiffe.id import SpiffeId
from fakes.front import INSTANCE, OPERATOR, OTHER, Front, call, front, obtained, opened
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")

BILLING = "spiffe://example.org/agents/billing"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(120), front(tmp_path) as found:
        yield found


async def killed(house: Front, caller: Operator = OPERATOR, **said: Any) -> Any:
    """Ask for a kill; the answer's body."""
    async with house.session(caller) as session:
        status, body = await call(session, "POST", "/v1/kills", said)
    assert status == 200, body
    return body


async def owned(house: Front, owner: str) -> str:
    """A live task of an identity."""
    return (await house.house.open(owner=SpiffeId.parse(owner))).id


async def live(house: Front) -> set[str]:
    """Which tasks live."""
    return {task.id for task in await house.house.world.database.read(tasks.live)}


async def test_a_dry_run_lists_and_ends_nothing(house: Front) -> None:
    """Tasks with those below, secrets by target; then the real one ends exactly those."""
    async with house.session(house.agent()) as session:
        top = await opened(session)
        child = await opened(session, parent=top)
        await obtained(session, top)
        await obtained(session, child)
    other = await owned(house, "spiffe://example.org/agents/other")
    seen = await killed(house, task=top, dry_run=True)
    assert ({one["id"] for one in seen["listed"]}, seen["tasks"]) == ({top, child}, 2)
    assert (seen["leases"], seen["identities"], seen["ended"], seen["left"]) == ({"orders-db": 2}, 0, 0, 2)
    assert len(await live(house)) == 3
    assert all(entry.receipt.kind is not ReceiptKind.KILLED for entry in await house.house.receipts())
    told = await killed(house, task=top, words="enough")
    assert (told["ended"], told["left"], told["dry_run"]) == (2, 0, False)
    assert await live(house) == {other}
    await house.tick()
    assert house.house.engine.target.principals == {}
    assert (await killed(house, task=top))["ended"] == 0  # twice is once


@pytest.mark.parametrize(
    ("said", "dies"),
    [
        ({"agent": BILLING}, {0}),
        ({"path": "spiffe://example.org/agents"}, {0, 1}),
        ({"path": BILLING}, {0, 1}),
        ({"trust_domain": "example.org"}, {0, 1, 2, 3}),
        ({"trust_domain": "example.or"}, set()),
        ({"instance": INSTANCE}, set()),
    ],
    ids=str,
)
async def test_what_each_word_reaches(house: Front, said: dict[str, Any], dies: set[int]) -> None:
    """An identity is itself, a path ends at its segment, a trust domain is no prefix of another's name."""
    owners = (
        BILLING,
        f"{BILLING}/invoices",
        "spiffe://example.org/agents-of-others/billing",
        "spiffe://example.org/Agents",
        "spiffe://example.org.evil.net/agents/billing",
    )
    names = [await owned(house, owner) for owner in owners]
    assert (await killed(house, **said))["ended"] == len(dies)
    assert await live(house) == {name for place, name in enumerate(names) if place not in dies}


async def test_a_tree_and_a_process(house: Front) -> None:
    """A tree is named by any of its tasks; a process by its instance, with what others hung below its tasks."""
    async with house.session(house.agent()) as first, house.session(house.agent(instance=OTHER)) as second:
        top = await opened(first)
        middle = await opened(first, parent=top)
        await opened(first, parent=middle)
        apart, mine = await opened(first), await opened(second)
        assert (await killed(house, tree=middle))["ended"] == 3
        assert await live(house) == {apart, mine}
        assert (await killed(house, instance=INSTANCE))["ended"] == 1
    assert await live(house) == {mine}


async def test_thousands_die_in_rounds(house: Front) -> None:
    """A bound on one request is kept, what is left is said, and each task has its receipt by the operator."""
    for _ in range(250):
        await owned(house, BILLING)
    first = await killed(house, agent=BILLING, most=130)
    assert (first["tasks"], first["ended"], first["left"]) == (250, 130, 120)
    assert (await killed(house, agent=BILLING))["left"] == 0
    assert await live(house) == set()
    receipts = [entry.receipt for entry in await house.house.receipts()]
    ends = [receipt for receipt in receipts if receipt.kind is ReceiptKind.TASK_ENDED]
    assert (len(ends), {receipt.actor for receipt in ends}) == (250, {"operator:ada"})
    asked = [receipt.body["name"] for receipt in receipts if receipt.kind is ReceiptKind.KILLED]
    assert asked == [BILLING, BILLING]


async def test_who_opens_meanwhile_does_not_keep_it_going(house: Front) -> None:
    """It names what was there when it began; what came later is not looked for, and not counted as left."""
    await owned(house, BILLING)
    what, now, database = Kill(reach=Reach.AGENT, name=BILLING), house.clock.now(), house.house.world.database
    began = await database.read(lambda tx: kills.newest(tx, what))
    later = await house.house.open(owner=SpiffeId.parse(BILLING), opened_at=now + timedelta(microseconds=1))
    assert began == now
    named = await database.read(lambda tx: kills.named(tx, what, now, None, 10))
    assert (len(named), later.id in named) == (1, False)
    assert await database.read(lambda tx: kills.count(tx, what, now)) == 1


async def test_what_another_broker_s_clock_calls_tomorrow_is_reached(house: Front) -> None:
    """It is there; nobody is told that nothing is left."""
    now = house.clock.now()
    await house.house.open(owner=SpiffeId.parse(BILLING), opened_at=now + timedelta(days=1))
    told = await killed(house, agent=BILLING)
    assert (told["ended"], told["left"]) == (1, 0)
    assert await live(house) == set()


@pytest.mark.parametrize("said", [{"agent": BILLING}, {"trust_domain": "example.org"}, {"instance": INSTANCE}], ids=str)
async def test_many_need_a_verb_of_their_own(house: Front, said: dict[str, str]) -> None:
    """Who may end a task may end one or its tree, not all of an agent; a workload none of it."""
    task = await owned(house, BILLING)
    narrow = Operator(name="eve", verbs=frozenset({Verb.END_TASKS}))
    without = Operator(name="bob", verbs=ALL_VERBS - {Verb.END_TASKS})
    for caller in (narrow, without, house.agent()):
        async with house.session(caller) as session:
            for dry in (True, False):
                status, body = await call(session, "POST", "/v1/kills", {**said, "dry_run": dry})
                assert (status, body["code"]) == (403, "denied")
    assert await live(house) == {task}
    assert (await killed(house, narrow, task=task))["ended"] == 1


@pytest.mark.parametrize(
    "said",
    [{}, {"dry_run": True}, {"agent": BILLING, "instance": INSTANCE}, {"agent": "billing"}, {"instance": "0"},
     {"trust_domain": "EXAMPLE.org"}, {"path": "spiffe://example.org/agents/"}, {"task": "%"},
     {"agent": BILLING, "most": 0}],
    ids=str,
)  # fmt: skip
async def test_what_is_not_one_clear_word_ends_nothing(house: Front, said: dict[str, Any]) -> None:
    """None, two, or one that is no name: 400, and nothing changes."""
    task = await owned(house, BILLING)
    async with house.session(OPERATOR) as session:
        status, body = await call(session, "POST", "/v1/kills", said)
    assert (status, body["code"]) == (400, "invalid")
    assert await live(house) == {task}


async def test_children_end_by_their_parent(house: Front) -> None:
    """The reason of each says why, in the audit and with the task."""
    scope = Scope(roles=frozenset(), sensitivity=Sensitivity.PUBLIC, budget=Budget())
    top = await house.house.open(scope=scope)
    below = await house.house.open(top, scope=scope)
    await killed(house, task=top.id, words="it deletes invoices")
    ended = [await house.house.task(one.id) for one in (top, below)]
    assert [one.state for one in ended] == [TaskState.CANCELLED] * 2
    assert [one.end_reason for one in ended] == [EndReason.OPERATOR, EndReason.PARENT_ENDED]
    assert ended[0].end_words == "it deletes invoices"
