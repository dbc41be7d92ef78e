"""sojourn target: what is written, proven, taken back; and the SQL for the database's owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.command.target_file import WantedRole, least_sql, quoted
from broker.engines.protocol import Finding
from broker.lifecycle.reload import Holding
from broker.settings import TargetSettings
from ca.errors import Malformed
from ca.runtime.settings import load
from fakes.commands import invoke, invoke_here

SAID = ("--host", "db.example.org", "--database", "orders", "--user", "sojourn", "--role", "readonly=readers:public")


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A file with a password."""
    path = tmp_path / "pw"
    path.write_text("tulip\n")
    return path


async def add(place: Any, password: Path, name: str = "invoices") -> Any:
    """Say it."""
    found = ("--password-file", password, "--folder", place.doors.targets_folder)
    return await invoke("target", "add", name, *SAID, *found, environment=place.environment)


async def test_a_target_that_is_well_is_kept(place: Any, password: Path) -> None:
    """As a private file the broker can read, without the password in it."""
    result = await add(place, password)
    assert result.exit_code == 0, result.output
    path = place.doors.targets_folder / "invoices.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "tulip" not in path.read_text() + result.output
    (role,) = load(path, TargetSettings).to_roles("invoices").values()
    assert (role.full_name, role.settings["groups"], str(role.sensitivity)) == (
        "invoices/readonly",
        ["readers"],
        "public",
    )
    assert place.doors.reloads == 1
    again = await add(place, password)
    assert again.exit_code == 1
    assert "already" in again.stderr


async def test_a_target_that_is_not_well_leaves_nothing(place: Any, password: Path) -> None:
    """The finding says what to do, the file is gone, and the broker knows."""
    fix = "GRANT pg_signal_backend TO sojourn;"
    place.doors.house.engine.findings = (Finding(name="may end sessions", well=False, detail="sojourn", fix=fix),)
    result = await add(place, password)
    assert result.exit_code == 1
    assert fix in result.stdout
    assert list(place.doors.targets_folder.iterdir()) == []
    assert place.doors.reloads == 2


async def test_a_reload_that_is_refused_leaves_nothing(place: Any, password: Path) -> None:
    """Whatever else is wrong in the folder."""
    place.doors.reload_problem = Malformed("the target `x` stands in the settings and in a file")
    result = await add(place, password)
    assert result.exit_code == 1
    assert "stands in the settings" in result.stderr
    assert list(place.doors.targets_folder.iterdir()) == []


async def test_what_can_not_be_meant_is_told_before_anything_is_written(place: Any, password: Path) -> None:
    """A bad name, a missing password, nothing to reach it by."""
    assert (await add(place, password, "../x")).exit_code == 1
    assert (await add(place, password.with_name("none"))).exit_code == 1
    assert (await invoke("target", "add", "x", *SAID, environment=place.environment)).exit_code == 2
    assert not place.doors.targets_folder.exists()


async def test_targets_are_listed_and_checked(place: Any) -> None:
    """By name, with their roles; one that isn't there is told."""
    listed = await invoke("target", "list", environment=place.environment)
    assert "orders-db/readonly" in listed.stdout
    checked = await invoke("target", "check", "orders-db", "--json", environment=place.environment)
    assert json.loads(checked.stdout)["well"] is True
    unknown = await invoke("target", "check", "nothing", environment=place.environment)
    assert (unknown.exit_code, unknown.stdout) == (1, "")


async def test_what_a_target_s_owner_installs_is_printed(place: Any) -> None:
    """As text and as JSON; where nothing is signed that is said."""
    place.doors.house.engine.fixed = True
    printed = await invoke("target", "ca", "orders-db", environment=place.environment)
    assert (printed.exit_code, printed.stdout) == (0, "AUTHORITY\n")
    told = await invoke("target", "ca", "orders-db", "--json", environment=place.environment)
    assert json.loads(told.stdout) == {"target": "orders-db", "authority": "AUTHORITY\n"}
    place.doors.house.engine.fixed = False
    refused = await invoke("target", "ca", "orders-db", environment=place.environment)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "nothing is signed" in refused.stderr


def test_the_least_sql_quotes_names_and_holds_no_password() -> None:
    """A name can't leave its quotes."""
    result = invoke_here("target", "add", "x", "--sql", "--database", "orders", "--user", 'a"b', "--role", "r=readers")
    assert result.exit_code == 0
    assert 'CREATE ROLE "a""b" LOGIN CREATEROLE' in result.stdout
    assert 'GRANT readers TO "a""b" WITH ADMIN OPTION;' in result.stdout
    assert "PASSWORD '" not in result.stdout
    assert least_sql("me", ["db"], ["a", "a"]).count("CREATE ROLE a NOLOGIN") == 1


async def test_everything_a_target_may_have_is_written(place: Any, password: Path) -> None:
    """Databases, standbys, the kind of secret, a role for another database."""
    said = ("--also", "archive", "--standby", "db2", "--standby", "[::1]:5433", "--secret-kind", "scram-few")
    roles_said = ("--role", "old=readers@archive:public", "--role", "odd=odd@group")
    found = (*SAID, *said, *roles_said, "--password-file", password, "--folder", place.doors.targets_folder)
    result = await invoke("target", "add", "invoices", *found, environment=place.environment)
    assert result.exit_code == 0, result.output
    target = load(place.doors.targets_folder / "invoices.yaml", TargetSettings)
    assert target.engine.databases == ("archive",)
    assert [(one.host, one.port) for one in target.engine.standbys] == [("db2", 5432), ("::1", 5433)]
    roles = target.to_roles("invoices")
    assert target.engine.secret_kind == "scram-few"
    assert (roles["invoices/old"].settings["database"], roles["invoices/old"].settings["groups"]) == (
        "archive",
        ["readers"],
    )
    assert roles["invoices/odd"].settings["groups"] == ["odd@group"]
    bad = await invoke("target", "add", "x", *found, "--standby", "a:b:c", environment=place.environment)
    assert "HOST:PORT" in bad.stderr


async def test_what_the_database_must_believe_is_shown_before_it_is_taken_back(place: Any, password: Path) -> None:
    """Certificates can't be proven before their CA is installed, and that is known only to the broker."""
    engine = place.doors.house.engine
    engine.fixed, engine.findings = True, (Finding(name="role", well=False, detail="certificate: failed", fix="do it"),)
    found = (*SAID, "--secret-kind", "certificate", "--password-file", password)
    folder = ("--folder", place.doors.targets_folder)
    result = await invoke("target", "add", "orders-db", *found, *folder, environment=place.environment)
    assert result.exit_code == 1
    assert "AUTHORITY" in result.output
    assert list(place.doors.targets_folder.iterdir()) == []


def test_the_least_sql_for_certificates_has_the_marker_and_the_lines() -> None:
    """Our own user's line is above the one it would match as a member."""
    text = least_sql("me", ["a", "b"], ["readers"], certificates=True)
    assert "GRANT sojourn_cert TO me WITH ADMIN OPTION;" in text
    assert text.index("hostssl all me all scram-sha-256") < text.index("hostssl all +sojourn_cert all cert")
    assert text.count("GRANT CONNECT ON DATABASE") == 2


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 64])
def test_what_is_no_identifier_is_refused(name: str) -> None:
    """It never reaches SQL."""
    with pytest.raises(Malformed):
        quoted(name)


@pytest.mark.parametrize(
    ("text", "groups", "level"),
    [
        ("r=a", ("a",), "internal"),
        ("r=a,b:restricted", ("a", "b"), "restricted"),
        ("r=odd:name", ("odd:name",), "internal"),
    ],
)
def test_a_role_is_read_as_it_is_typed(text: str, groups: tuple[str, ...], level: str) -> None:
    """Only a known sensitivity behind the last colon is one."""
    found = WantedRole.parse(text)
    assert (found.name, found.groups, found.sensitivity) == ("r", groups, level)


@pytest.mark.parametrize("text", ["r", "r=", "=a", "R=a", "r=:public"])
def test_what_is_no_role_is_refused(text: str) -> None:
    """With what was expected."""
    with pytest.raises(Malformed):
        WantedRole.parse(text)


async def test_a_held_reload_is_listed_and_waits_for_confirm(place: Any) -> None:
    """Exit code 1 until it is confirmed; then it says how many secrets are being ended."""
    place.doors.held = [Holding(target="orders-db", role="orders-db/readonly", leases=3, tasks=2)]
    held = await invoke("target", "reload", environment=place.environment)
    assert held.exit_code == 1
    assert "orders-db/readonly" in held.stdout
    assert "--confirm" in held.stdout
    told = await invoke("target", "reload", "--confirm", "--json", environment=place.environment)
    assert (told.exit_code, json.loads(told.stdout)["ending"]) == (0, 3)
