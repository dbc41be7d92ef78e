"""`sojourn demo` as a newcomer runs it: every promise shown, exit 0; and exit 1 as soon as one is not kept."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from broker.demo.orders import ADMINISTRATOR, CLAIM, DATABASE, READERS, WRITERS
from broker.demo.timeline import Timeline
from ca.runtime.clock import SystemClock
from journeys.processes import Finished, short_folder, sojourn
from servers.postgres import Server, postgres

WORKS = (
    "attested as", "task opened", "secret decided", "user created", "wrong password refused", "own password accepted",
    "real rows read", "write refused", "other role refused", "nearest change", "task ended", "login refused",
    "open session cut", "user gone", "closing report", "agent ended",
)  # fmt: skip
KILLED = (
    "attested as", "query running", "kill -9", "open session cut", "stolen password refused", "user gone",
    "closing report",
)  # fmt: skip
STORY = (
    ("Setting up", ("PostgreSQL answers", "sojourn is up")),
    ("One task, end to end", WORKS),
    ("An agent killed with -9 in the middle of a query", KILLED),
    ("Afterwards", ("audit verified", "nothing left")),
)


async def demo(*arguments: str, environment: dict[str, str] | None = None) -> Finished:
    """The command, to its end."""
    with short_folder() as folder:
        return await sojourn("demo", *arguments, folder=folder, environment=environment)


def told(finished: Finished) -> Sequence[dict[str, Any]]:
    """Every line it said."""
    return [json.loads(line) for line in finished.out.splitlines()]


def whole(finished: Finished) -> None:
    """Everything that was promised was told in its order, and holds."""
    *facts, verdict = told(finished)
    said = [(fact["part"], fact["what"]) for fact in facts]
    assert said == [(part, what) for part, expected in STORY for what in expected]
    assert all(fact["holds"] and fact["at_ms"] >= 0 for fact in facts)
    assert verdict == {"part": "verdict", "holds": True, "failed": []}
    assert finished.code == 0
    by_name = {fact["what"]: fact["detail"] for fact in facts}
    assert "0 lines of trust" in by_name["PostgreSQL answers"]
    assert "starter." in by_name["secret decided"]
    assert "0 users" in by_name["nothing left"]


async def theirs(server: Server) -> set[str]:
    """What the demo would have left in a server that isn't its own."""
    session = await server.connect()
    try:
        rows = await session.fetch(
            "SELECT datname::text AS name FROM pg_database WHERE datname = $1"
            " UNION SELECT rolname::text FROM pg_roles WHERE rolname = ANY($2::text[]) OR rolname LIKE 'sj\\_%'",
            DATABASE,
            [ADMINISTRATOR, READERS, WRITERS, CLAIM],
        )
    finally:
        await session.close()
    return {row["name"] for row in rows}


def on(server: Server) -> tuple[str, ...]:
    """The arguments that name a server of the user's own."""
    return (
        "--json", "--database", f"{server.host}:{server.port}",
        "--user", server.superuser, "--password", "env:PGPASSWORD",
    )  # fmt: skip


async def test_the_whole_story_with_the_database_it_brings() -> None:
    """Each line as an object; every promise held."""
    whole(await demo("--json"))


async def test_it_is_told_for_people_too() -> None:
    """A line per fact with its milliseconds, a mark, and a sentence at the end; no colour where there is no screen."""
    finished = await demo()
    lines = [line for line in finished.out.splitlines() if line.strip()]
    assert finished.code == 0
    assert sum(" ms  ✓ " in line for line in lines) == sum(len(expected) for _, expected in STORY)
    assert lines[-1] == "Nothing is left: every promise above was checked at the database."
    assert "\x1b" not in finished.out


async def test_the_whole_story_on_a_server_of_the_user_s_own_leaves_nothing_there() -> None:
    """What it made is taken away; twice in a row."""
    async with postgres(fresh=True) as server:
        for _ in range(2):
            whole(await demo(*on(server), environment={"PGPASSWORD": server.password}))
            assert not await theirs(server)


async def test_what_has_one_of_its_names_is_left_alone() -> None:
    """A database of that name may be somebody's, a claim is another broker's: it says so, exits 1, touches nothing."""
    async with postgres(fresh=True) as server:
        owner = await server.connect()
        for name, make, drop in ((DATABASE, "CREATE DATABASE", "DROP DATABASE"), (CLAIM, "CREATE ROLE", "DROP ROLE")):
            await owner.execute(f"{make} {name}")
            finished = await demo(*on(server), environment={"PGPASSWORD": server.password})
            assert finished.code == 1
            assert f"`{name}`" in told(finished)[-2]["detail"]
            assert await theirs(server) == {name}
            await owner.execute(f"{drop} {name}")
        await owner.close()


async def test_a_closed_port_is_a_broken_promise() -> None:
    """Exit 1, one sentence, and the verdict names it."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        arguments = ("--json", "--database", f"127.0.0.1:{port}", "--password", "env:PGPASSWORD")
        finished = await demo(*arguments, environment={"PGPASSWORD": "x"})
    *_, stopped, verdict = told(finished)
    assert finished.code == 1
    assert (stopped["what"], stopped["holds"]) == ("stopped", False)
    assert str(port) in stopped["detail"]
    assert verdict == {"part": "verdict", "holds": False, "failed": ["Setting up: stopped"]}


async def test_a_user_who_may_not_is_told_so() -> None:
    """A login without the rights to make users: what the server said, exit 1, nothing left."""
    async with postgres(fresh=True) as server:
        owner = await server.connect()
        await owner.execute("CREATE ROLE meek LOGIN PASSWORD 'meek'")
        await owner.close()
        where = f"{server.host}:{server.port}"
        finished = await demo(
            "--json", "--database", where, "--user", "meek", "--password", "env:P", environment={"P": "meek"}
        )
        assert finished.code == 1
        assert "permission denied" in told(finished)[-2]["detail"]
        assert "Traceback" not in finished.err
        assert not await theirs(server)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--database", "nowhere"),
        ("--database", "127.0.0.1:5432"),
        ("--database", "127.0.0.1:1", "--password", "env:NO"),
    ],
)
async def test_what_can_t_be_meant_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """Exit 2 and nothing was started."""
    finished = await demo(*arguments)
    assert finished.code == 2
    assert "--password" in finished.err
    assert not finished.out


def test_a_fact_that_does_not_hold_makes_the_verdict_no(capsys: pytest.CaptureFixture[str]) -> None:
    """One is enough, and the verdict names it and its part."""
    timeline = Timeline(SystemClock(), as_json=True)
    timeline.part("One task")
    timeline.fact("login refused", "it was let in", holds=False)
    timeline.fact("user gone")
    assert not timeline.verdict()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[-1] == {"part": "verdict", "holds": False, "failed": ["One task: login refused"]}
