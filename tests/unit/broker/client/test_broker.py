"""The typed client, against a broker's own doors on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.client.errors import Unreachable
from broker.client.broker import Broker
from broker.client.stream import Snapshot
from broker.errors import AlreadyAcknowledged, Refused
from broker.model.act import Action
from broker.model.caller import Verb
from broker.model.event import EventKind
from broker.model.scope import Sensitivity
from broker.model.task import TaskState
from broker.wire.credentials import AskCredential
from broker.wire.decisions import AskDecision
from broker.wire.events import EventLine
from broker.wire.operators import AddOperator
from broker.wire.proof import new_key
from broker.wire.tasks import EndTask, Heartbeat, OpenTask, ScopeBody
from ca.errors import Denied, Malformed, NotFound
from fakes.doors import CLOCK, PASSWORD, Doors, doors
from fakes.pki import SelfSigned, TestAuthority

ROLE = "orders-db/readonly"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Doors]:
    """A broker."""
    async with doors(tmp_path) as found:
        yield found


def opening(**said: object) -> OpenTask:
    """A task for the one role."""
    scope = ScopeBody(roles=[ROLE], sensitivity=Sensitivity.INTERNAL)
    return OpenTask.model_validate({"purpose": "to see", "scope": scope, **said})


async def test_a_task_from_its_opening_to_its_report(house: Doors) -> None:
    """Open, ask, acknowledge, end, and the report says that the access is gone."""
    async with house.as_agent() as broker:
        opened = await broker.open_task(opening())
        asked = await broker.ask(opened.task.id, AskCredential(role=ROLE), key="k")
        assert asked.secret["password"].reveal() == PASSWORD
        assert (await broker.ack(asked.lease.id)).acknowledged_at is not None
        with pytest.raises(AlreadyAcknowledged):
            await broker.ask(opened.task.id, AskCredential(role=ROLE), key="k")
        assert (await broker.end(opened.task.id, EndTask(words="seen"))).state is TaskState.DONE
        report = await broker.report(opened.task.id)
        assert report.end_words == "seen"
        assert [line.role for line in report.leases] == [ROLE]


async def test_what_is_asked_may_be_read_back(house: Doors) -> None:
    """Roles, decisions, beats, leases, trees and pages come as their models."""
    async with house.as_agent() as broker:
        task = (await broker.open_task(opening())).task.id
        assert [role.name for role in (await broker.roles()).items] == [ROLE]
        decision = await broker.decide(AskDecision(task=task, action=Action.OBTAIN, resource=ROLE))
        assert "starter.credential" in decision.policies
        lease = (await broker.ask(task, AskCredential(role=ROLE))).lease.id
        assert (await broker.beat(task, Heartbeat(leases=[lease]))).acknowledged == [lease]
        assert [one.id for one in (await broker.leases(task)).items] == [lease]
        assert [one.id for one in (await broker.tree(task)).tasks] == [task]
        assert [one.id for one in (await broker.tasks()).items] == [task]
        assert (await broker.task(task)).bound


async def test_a_refusal_keeps_what_decided_it(house: Doors) -> None:
    """The Problem that comes out is the one that went in, with its facts."""
    async with house.as_agent() as broker:
        task = (await broker.open_task(opening(scope=ScopeBody(roles=[ROLE])))).task.id
        with pytest.raises(Refused, match="outside the task's scope") as caught:
            await broker.ask(task, AskCredential(role=ROLE))
        assert caught.value.details["policies"] == "scope"
        assert "nearest" in caught.value.details


async def test_an_operator_ends_lists_and_revokes(house: Doors) -> None:
    """On the socket every verb is there, and a task of one's own is not."""
    async with house.as_agent() as agent, house.as_operator() as operator:
        task = (await agent.open_task(opening())).task.id
        lease = (await agent.ask(task, AskCredential(role=ROLE))).lease.id
        assert [one.id for one in (await operator.tasks(live=True)).items] == [task]
        assert [one.id for one in (await operator.leases(open_only=True)).items] == [lease]
        assert (await operator.revoke(lease)).close_reason == "operator"
        assert (await operator.end(task, EndTask(words="stop"))).end_reason == "operator"
        assert (await operator.tasks(live=True)).items == []
        assert [one.state for one in (await operator.targets()).items] == ["up"]
        assert (await operator.check_target("orders-db")).well
        with pytest.raises(Denied, match="no task of its own"):
            await operator.open_task(opening())


async def test_operators_come_and_go(house: Doors) -> None:
    """A certificate is bound to verbs, listed, and its verbs are taken away."""
    pem = SelfSigned.make("ada", CLOCK.now()).chain_pem().decode()
    async with house.as_operator() as operator:
        await operator.add_operator(AddOperator(name="ada", certificate=pem, verbs=[Verb.READ_TASKS]))
        assert [(one.name, one.verbs) for one in (await operator.operators()).items] == [("ada", ["tasks:read"])]
        await operator.remove_operator("ada")
        assert (await operator.operators()).items == []
        with pytest.raises(NotFound):
            await operator.remove_operator("../tasks")


async def test_the_audit_comes_in_pages_with_its_heads(house: Doors) -> None:
    """Reading page by page reaches every head."""
    async with house.as_agent() as agent, house.as_operator() as operator:
        await agent.open_task(opening())
        (head,) = (await operator.heads()).items
        first = await operator.audit(limit=1)
        assert first.next == f"{head.writer}:1"
        rest = await operator.audit(first.next)
        assert rest.items[-1].to_entry().hash == head.hash


async def test_a_key_proves_a_task_of_no_process(house: Doors) -> None:
    """Another process of the same identity speaks for the task with the key, and not without it."""
    key = new_key()
    public = {name: value for name, value in key.as_dict(private=False).items() if name in {"kty", "crv", "x", "y"}}
    ask = opening(bind=False, lasts=timedelta(minutes=5), key=public)
    async with house.as_agent(instance=None) as opener:
        task = (await opener.open_task(ask)).task.id
    async with house.as_agent(instance="f" * 32) as other:
        with pytest.raises(NotFound):
            await other.task(task)
        proven = other.proven_by(key)
        assert (await proven.task(task)).bound is False
        assert (await proven.ask(task, AskCredential(role=ROLE))).fields["port"] == 5432


async def test_events_of_ones_own_tree_arrive_in_order(house: Doors) -> None:
    """From the opening's cursor on, each step is told."""
    async with house.as_agent() as agent, house.as_operator() as operator:
        task = (await agent.open_task(opening())).task.id
        kinds = []
        async with aclosing(agent.events(task, cursor=_before(house))) as events:
            await agent.ask(task, AskCredential(role=ROLE))
            await operator.end(task, EndTask())
            async for event in events:
                assert isinstance(event, EventLine)
                kinds.append(event.kind)
                if event.kind is EventKind.TASK_CLOSED:
                    break
    assert kinds[:3] == [EventKind.TASK_OPENED, EventKind.LEASE_ISSUED, EventKind.TASK_ENDED]


async def test_a_cursor_of_another_life_begins_with_a_snapshot(house: Doors) -> None:
    """What is not in it is over."""
    async with house.as_agent() as agent:
        task = (await agent.open_task(opening())).task.id
        async with aclosing(agent.events(task, cursor="another.7")) as events:
            first = await anext(events)
        assert isinstance(first, Snapshot)
        assert first.tasks == {task: 1}


async def test_another_authority_is_not_let_in(house: Doors) -> None:
    """Its certificate is refused in the handshake; the client is told what an empty answer means."""
    with pytest.raises(Unreachable, match="refuses this identity"):
        async with house.as_agent(authority=TestAuthority(now=CLOCK.now())) as broker:
            await broker.roles()
    assert house.refused


async def test_a_server_that_is_not_the_broker_gets_nothing(tmp_path: Path) -> None:
    """Only the broker of one's own trust domain is spoken to, and the sentence says who answered instead."""
    async with doors(tmp_path) as house:
        foreigner = house.material(authority=TestAuthority("foreign.org", now=CLOCK.now()))
        async with Broker.connect(foreigner, house.url) as broker:
            with pytest.raises(Unreachable, match="not the broker that is expected"):
                await broker.roles()


async def test_nobody_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    """A dead socket and a closed port are unreachable."""
    async with Broker.on_socket(tmp_path / "broker.sock") as broker:
        with pytest.raises(Unreachable, match="sojourn up"):
            await broker.targets()


async def test_an_address_is_an_address() -> None:
    """Nothing but https, a host and a port."""
    with pytest.raises(Malformed):
        async with Broker.connect(None, "http://127.0.0.1:1"):  # type: ignore[arg-type]
            pass


def _before(house: Doors) -> str:
    """The cursor before anything happened."""
    return f"{house.house.world.installation.incarnation}.0"
