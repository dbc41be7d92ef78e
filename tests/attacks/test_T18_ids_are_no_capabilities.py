"""T18: whoever knows the id of a task or a lease knows an id; what is another's is told as what does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from broker.model.caller import Caller
from broker.model.ids import new_lease, new_task
from broker.store import tasks
from broker.wire.proof import mint, new_key
from fakes.front import OPENING, OTHER, ROLE, Front, call, front, obtained, opened

OF_A_TASK: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/tasks/{id}", None),
    ("GET", "/v1/tasks/{id}/tree", None),
    ("GET", "/v1/tasks/{id}/report", None),
    ("POST", "/v1/tasks/{id}/heartbeat", {}),
    ("POST", "/v1/tasks/{id}/state", {"event": "wait"}),
    ("POST", "/v1/tasks/{id}/end", {}),
    ("POST", "/v1/tasks/{id}/credentials", {"role": ROLE}),
    ("POST", "/v1/tasks/{id}/credentials?ack=received", {"role": ROLE}),
    ("POST", "/v1/tasks/{id}/credentials", {"role": "there-is/no-such-role"}),
    ("POST", "/v1/tasks", {**OPENING, "parent": "{id}"}),
    ("POST", "/v1/decisions", {"task": "{id}", "action": "obtain", "resource": ROLE}),
    ("GET", "/v1/leases?task={id}", None),
    ("GET", "/v1/audit?task={id}", None),
    ("GET", "/v1/events?task={id}", None),
)
OF_A_LEASE: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/v1/leases/{id}/ack", {}),
    ("POST", "/v1/leases/{id}/renew", {}),
    ("DELETE", "/v1/leases/{id}", None),
)
THIEVES: Mapping[str, Mapping[str, Any]] = {
    "another process of the same identity": {"instance": OTHER},
    "another identity": {"path": "/agents/payroll", "instance": OTHER},
    "one without an instance": {"instance": None},
    "a foreign domain that names our instance": {"domain": "foreign.test"},
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Front]:
    """A broker's routes."""
    async with asyncio.timeout(60), front(tmp_path) as found:
        yield found


def public(key: ECKey) -> Mapping[str, str]:
    """What is registered of a key."""
    return {name: str(value) for name, value in key.as_dict(private=False).items() if name in {"kty", "crv", "x", "y"}}


def told(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An answer without what differs from request to request; the id that was asked for, by one name."""
    return {key: str(value).replace(name, "ID") for key, value in body.items() if key not in {"instance", "request_id"}}


async def asked(house: Front, caller: Caller, row: tuple[str, str, Any], name: str, **headers: str) -> Any:
    """Ask for one object by its id."""
    method, path, body = row
    said = {key: name if value == "{id}" else value for key, value in body.items()} if body else body
    async with house.session(caller) as session:
        status, answer = await call(session, method, path.format(id=name), said, **headers)
    return status, told(answer, name)


@pytest.mark.parametrize("thief", THIEVES)
@pytest.mark.parametrize("row", OF_A_TASK, ids=lambda row: f"{row[0]} {row[1]} {sorted(row[2] or ())}")
async def test_another_s_task_is_no_task(house: Front, row: tuple[str, str, Any], thief: str) -> None:
    """404 in the very words of a task that never was, and the task is what it was."""
    async with house.session(house.agent()) as owner:
        task = await opened(owner)
    before = await house.house.task(task)  # type: ignore[arg-type]
    caller = house.agent(**THIEVES[thief])
    theirs = await asked(house, caller, row, task)
    nobodys = await asked(house, caller, row, new_task(house.clock.now()))
    assert theirs == nobodys
    assert theirs[0] == 404
    assert await house.house.task(task) == before  # type: ignore[arg-type]
    assert not await house.house.leases()


@pytest.mark.parametrize("thief", THIEVES)
@pytest.mark.parametrize("row", OF_A_LEASE, ids=lambda row: f"{row[0]} {row[1]}")
async def test_another_s_lease_is_no_lease(house: Front, row: tuple[str, str, Any], thief: str) -> None:
    """404 in the very words of a lease that never was, and the lease is what it was."""
    async with house.session(house.agent()) as owner:
        lease = (await obtained(owner, await opened(owner)))["lease"]["id"]
    before = await house.house.leases()
    caller = house.agent(**THIEVES[thief])
    theirs = await asked(house, caller, row, lease)
    nobodys = await asked(house, caller, row, new_lease(house.clock.now()))
    assert theirs == nobodys
    assert theirs[0] == 404
    assert await house.house.leases() == before


async def test_a_broken_proof_tells_nothing_of_the_task_it_was_shown_for(house: Front) -> None:
    """A task with a key, one without, and none at all: the same 401, so a header finds no tasks."""
    key = new_key()
    async with house.session(house.agent(instance=None)) as owner:
        keyed = await opened(owner, bind=False, lasts="10m", key=public(key))
    async with house.session(house.agent()) as owner:
        bound = await opened(owner)
    caller = house.agent(instance=OTHER)
    row = OF_A_TASK[0]
    nobody = new_task(house.clock.now())
    answers = [await asked(house, caller, row, task, DPoP="not.a.proof") for task in (keyed, bound, nobody)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 401


async def test_a_proof_by_another_key_is_none(house: Front) -> None:
    """It is a good proof, of something else."""
    key, thief = new_key(), new_key()
    caller = house.agent(instance=None)
    async with house.session(caller) as owner:
        task = await opened(owner, bind=False, lasts="10m", key=public(key))
    nobody = new_task(house.clock.now())
    theirs, nobodys = [
        await asked(house, caller, OF_A_TASK[0], name, DPoP=mint(thief, "GET", f"/v1/tasks/{name}", house.clock.now()))
        for name in (task, nobody)
    ]
    assert theirs == nobodys
    assert theirs[0] == 404
    shown = mint(key, "GET", f"/v1/tasks/{task}", house.clock.now())
    assert (await asked(house, caller, OF_A_TASK[0], task, DPoP=shown))[0] == 200


async def test_a_proof_is_good_for_its_owner_s_identity_only(house: Front) -> None:
    """Stolen together with the key it still needs the certificate."""
    key = new_key()
    async with house.session(house.agent(instance=None)) as owner:
        task = await opened(owner, bind=False, lasts="10m", key=public(key))
    shown = mint(key, "GET", f"/v1/tasks/{task}", house.clock.now())
    thief = house.agent("/agents/payroll", instance=None)
    assert (await asked(house, thief, OF_A_TASK[0], task, DPoP=shown))[0] == 404


@pytest.mark.parametrize("what", ["again", "method", "path", "old", "early"])
async def test_a_proof_that_was_caught_opens_nothing(house: Front, what: str) -> None:
    """Not a second time, for nothing else, and neither later nor before its time."""
    key, caller = new_key(), house.agent(instance=None)
    async with house.session(caller) as owner:
        task, other = [await opened(owner, bind=False, lasts="10m", key=public(key)) for _ in range(2)]
    moment = house.clock.now() + timedelta(seconds={"old": -61, "early": 61}.get(what, 0))
    method, path = "POST" if what == "method" else "GET", f"/v1/tasks/{other if what == 'path' else task}"
    caught = mint(key, method, path, moment)
    if what == "again":
        assert (await asked(house, caller, OF_A_TASK[0], task, DPoP=caught))[0] == 200
        await house.clock.advance(59)
    assert (await asked(house, caller, OF_A_TASK[0], task, DPoP=caught))[0] == 401


@pytest.mark.parametrize("path", ["/v1/events", "/v1/audit", "/v1/audit/heads", "/v1/leases", "/v1/operators"])
async def test_what_belongs_to_no_task_is_for_operators(house: Front, path: str) -> None:
    """An agent reads nobody's events, receipts and leases but its own tree's."""
    async with house.session(house.agent()) as session:
        await obtained(session, await opened(session))
        status, said = await call(session, "GET", path)
    assert (status, said["code"]) == (403, "denied")


async def test_a_list_of_tasks_is_one_s_own(house: Front) -> None:
    """Whoever names our instance from a foreign domain has none."""
    async with house.session(house.agent()) as session:
        task = await opened(session)
        _, listed = await call(session, "GET", "/v1/tasks")
    assert [one["id"] for one in listed["items"]] == [task]
    for thief in (house.agent(instance=OTHER), house.agent(domain="foreign.test")):
        async with house.session(thief) as session:
            _, listed = await call(session, "GET", "/v1/tasks")
        assert not listed.get("items")


async def test_a_foreign_domain_borrows_no_process_of_ours(house: Front) -> None:
    """An instance named by another authority is none: no task is bound to it, no strength comes from it."""
    async with house.session(house.agent(domain="foreign.test")) as session:
        status, said = await call(session, "POST", "/v1/tasks", OPENING)
    assert (status, said["key"]) == (400, "deadline")
    assert await house.house.world.database.read(tasks.live) == []


async def test_a_stream_tells_one_tree(house: Front) -> None:
    """Nothing of another root reaches it, not even its ids in a snapshot."""
    async with house.session(house.agent()) as mine, house.session(house.agent(instance=OTHER)) as theirs:
        task, other = await opened(mine), await opened(theirs)
        await obtained(theirs, other)
        await house.tick()
        async with mine.get(f"/v1/events?task={task}", headers={"Last-Event-ID": "none.0"}) as answer:
            seen = await answer.content.readuntil(b"resync\n") + await answer.content.readuntil(b"\n\n")
            await call(theirs, "POST", f"/v1/tasks/{other}/end", {})
            await call(mine, "POST", f"/v1/tasks/{task}/end", {})
            await house.tick()
            while b"task.ended" not in seen:
                seen += await answer.content.readuntil(b"\n\n")
    assert task.encode() in seen
    assert other.encode() not in seen
