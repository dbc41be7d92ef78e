"""The broker's settings: targets of the file and of the folder, and every fault named with its place."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.model.scope import Sensitivity
from broker.settings import BrokerSettings
from ca.errors import Malformed
from ca.runtime.settings import BadSettings, loads

TARGET = """\
engine: {kind: postgres, host: db.example.org, database: orders, user: broker, password: "env:PASSWORD"}
roles:
  readonly: {sensitivity: internal, ttl: 5m, engine: {groups: [readers]}}
"""
PLAIN = "admin_socket: /run/s.sock\ndatabase: sqlite:/var/lib/s.db\n"


def read(text: str) -> BrokerSettings:
    """As from a file."""
    return loads(text, "broker.yaml", BrokerSettings)


def indented(text: str) -> str:
    """One target inside the settings."""
    return "targets:\n  orders-db:\n" + "".join(f"    {line}\n" for line in text.splitlines())


def test_little_must_be_said() -> None:
    """Where the operators' socket and the store are; nothing listens beyond this machine unasked."""
    settings = read(PLAIN)
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 8443)
    assert settings.all_targets() == {}
    assert settings.tasks.observe_grace == timedelta(seconds=60)


@pytest.mark.parametrize(
    "database",
    ["broker.db", "mysql://u@h/d", "postgresql://u:hunter2@127.0.0.1/d", "postgresql://u@h/d?password=hunter2"],
)
def test_a_store_that_can_t_be_is_found_with_the_settings(database: str) -> None:
    """And a password that stands there is not repeated."""
    with pytest.raises(BadSettings, match="database") as caught:
        read(PLAIN.replace("sqlite:/var/lib/s.db", f'"{database}"'))
    assert "hunter2" not in str(caught.value)


def test_roles_are_named_by_their_target() -> None:
    """With what its engine wants to know kept as it was said."""
    (target,) = read(PLAIN + indented(TARGET)).all_targets().values()
    (role,) = target.to_roles("orders-db").values()
    assert (role.full_name, role.sensitivity, role.ttl) == (
        "orders-db/readonly", Sensitivity.INTERNAL, timedelta(minutes=5),
    )  # fmt: skip
    assert role.settings["groups"] == ["readers"]


def test_targets_of_the_folder_join_those_of_the_file(tmp_path: Path) -> None:
    """One file each; a name that stands in both is refused with the file."""
    (tmp_path / "second-db.yaml").write_text(TARGET)
    settings = read(f"{PLAIN}targets_folder: {tmp_path}\n{indented(TARGET)}")
    assert sorted(settings.all_targets()) == ["orders-db", "second-db"]
    (tmp_path / "orders-db.yaml").write_text(TARGET)
    with pytest.raises(Malformed, match=r"`orders-db`.*orders-db\.yaml"):
        settings.all_targets()


@pytest.mark.parametrize(("name", "text"), [("Orders", TARGET), ("a b", TARGET), ("bad", "engine: 7\n")])
def test_a_bad_file_of_the_folder_is_named(tmp_path: Path, name: str, text: str) -> None:
    """By its name or by its path and line."""
    (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(Malformed, match=name):
        read(f"{PLAIN}targets_folder: {tmp_path}\n").all_targets()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("nonsense: 1\n", "nonsense"),
        ("tasks: {deepest_tree: 0}\n", "deepest_tree"),
        ("tasks: {most_live: 0}\n", "most_live"),
        ("tasks: {longest: soon}\n", "longest"),
        ("listen: {port: 70000}\n", "port"),
        (indented(TARGET.replace("internal", "secretive")), "sensitivity"),
        (indented(TARGET.replace("env:PASSWORD", "hunter2")), "password"),
        (indented(TARGET.replace("kind: postgres", "kind: oracle")), "kind"),
    ],
)
def test_a_fault_is_named_with_its_key(text: str, place: str) -> None:
    """And what stands there as a secret is not repeated."""
    with pytest.raises(BadSettings, match=place) as refused:
        read(PLAIN + text)
    assert "hunter2" not in str(refused.value)
