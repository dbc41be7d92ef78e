"""sojourn run, as the process a user starts: what its command gets, and what is left afterwards."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.model.report import Fate
from broker.model.task import TaskState
from broker.wire.reports import ReportTold
from broker.wire.tasks import EndTask, TaskTold
from fakes.caller import has_ended
from fakes.commands import answers, ended, invoke_here, start
from fakes.doors import PASSWORD

ROLE = "orders-db/readonly"
TELL = "import json, os; print(json.dumps({'env': dict(os.environ), 'file': open(os.environ['F']).read(), "
TELL += "'fd': os.fdopen(int(os.environ['D'])).read()}))"


async def only_task(place: Any) -> tuple[TaskTold, ReportTold]:
    """The one task there was, and its report."""
    async with place.doors.as_operator() as operator:
        (found,) = (await operator.tasks()).items
        return found, await operator.report(found.id)


async def test_a_command_gets_its_secrets_each_way_and_nothing_of_ours(place: Any) -> None:
    """A variable, a private file, a descriptor; afterwards the task is done and its access gone."""
    gifts = ("--env", f"V={ROLE}:password", "--file", f"F={ROLE}:username", "--fd", f"D={ROLE}")
    process = await start("run", *gifts, "--", sys.executable, "-c", TELL, environment=place.environment)
    code, out, err = await ended(process)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["env"]["V"] == PASSWORD
    assert told["file"].startswith("sj_")
    assert json.loads(told["fd"])["password"] == PASSWORD
    assert not [name for name in told["env"] if name.startswith(("SOJOURN", "SPIFFE"))]
    task, report = await only_task(place)
    assert (task.state, task.purpose, task.bound) == (TaskState.DONE, f"run {Path(sys.executable).name}", True)
    assert [line.fate for line in report.leases] == [Fate.GONE]
    assert place.doors.engine_target.principals == {}


async def test_a_bare_database_role_sets_what_libpq_reads(place: Any) -> None:
    """PGHOST and its kin, and a private password file in libpq's own form."""
    code = "import os; p = os.environ['PGPASSFILE']; print(oct(os.stat(p).st_mode)[-3:], open(p).read(), end='')"
    names = ("PGHOST", "PGPORT", "PGDATABASE", "PGSSLMODE")
    code += f"; print(*[os.environ[n] for n in {names}], os.environ['PGUSER'])"
    process = await start("run", "--role", ROLE, "--", sys.executable, "-c", code, environment=place.environment)
    status, out, err = await ended(process)
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    mode, line = first.split(" ", 1)
    user = second.split()[-1]
    assert mode == "600"
    assert line == f"db.example.org:5432:orders:{user}:tulip\\:back\\\\slash"
    assert second == f"db.example.org 5432 orders require {user}"


async def test_the_exit_code_is_passed_on_and_fails_the_task(place: Any) -> None:
    """And the report says which it was."""
    process = await start("run", "--role", ROLE, "--", sys.executable, "-c", "exit(7)", environment=place.environment)
    assert (await ended(process))[0] == 7
    task, report = await only_task(place)
    assert (task.state, report.end_words) == (TaskState.FAILED, "the command ended with 7")


async def test_a_signal_reaches_the_command(place: Any) -> None:
    """SIGTERM to us is the command's to answer."""
    process = await start("run", "--", sys.executable, "-c", answers("SIGTERM"), environment=place.environment)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert (await ended(process))[0] == 5


async def test_a_killed_task_ends_the_command(place: Any) -> None:
    """Told in the words of whoever killed it."""
    code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    process = await start("run", "--role", ROLE, "--", sys.executable, "-c", code, environment=place.environment)
    assert process.stdout is not None
    child = int(await process.stdout.readline())
    task, _ = await only_task(place)
    async with place.doors.as_operator() as operator:
        await operator.end(task.id, EndTask(words="it deletes invoices"))
    status, _, err = await ended(process)
    assert status == 1
    assert "(operator): it deletes invoices; the command was ended" in err
    assert has_ended(child)


async def test_a_refusal_starts_nothing(place: Any) -> None:
    """A field that isn't there, a role nobody has, a command that doesn't exist: one sentence, and no task is left."""
    for arguments, words in (
        (("--env", f"V={ROLE}:passwort", "--", "true"), "no field `passwort`"),
        (("--role", "orders-db/owner", "--", "true"), "no role `orders-db/owner`"),
        (("--role", ROLE, "--", "/no-such-program"), "no program `/no-such-program`"),
    ):
        status, out, err = await ended(await start("run", *arguments, environment=place.environment))
        assert (status, out) == (1, "")
        assert words in err
        assert PASSWORD not in err
    async with place.doors.as_operator() as operator:
        assert (await operator.tasks(live=True)).items == []


async def test_nobody_there_is_exit_code_3(place: Any) -> None:
    """No Workload API, and no broker."""
    for change in ({"SPIFFE_ENDPOINT_SOCKET": "unix:///nothing.sock"}, {"SOJOURN_BROKER": "https://127.0.0.1:1"}):
        process = await start("run", "--", "true", environment={**place.environment, **change})
        status, _, err = await ended(process)
        assert status == 3
        assert "sojourn up" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--env", "V=a/b", "--", "true"),
        ("run", "--env", "a-b=a/b:c", "--", "true"),
        ("run", "--unknown", "--", "true"),
    ],
)
def test_misuse_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """Before anybody is asked."""
    assert invoke_here(*arguments).exit_code == 2
