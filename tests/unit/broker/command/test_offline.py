"""Commands that ask nobody: help, policies, settings; and that help costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from broker.client.child import Delivery
from broker.command import COMMANDS, root
from broker.command.gifts import POSTGRES, Wanted, check
from broker.command.operator import VERBS
from broker.model.caller import Verb
from ca.errors import Malformed
from fakes.commands import invoke_here

OWN = ("run", "status", "doctor", "task", "secret", "lease", "target", "policy", "audit", "operator", "config")
CONFIG = Path(__file__).parents[4] / "config"
AGENT = "spiffe://example.org/agents/billing"


def leaves(name: str) -> list[tuple[str, ...]]:
    """A command, or every subcommand of a group."""
    command = root.get_command(click.Context(root), name)
    if isinstance(command, click.Group):
        return [(name, below) for below in command.commands]
    return [(name,)]


@pytest.mark.parametrize("path", [path for name in OWN for path in leaves(name)], ids=" ".join)
def test_each_command_says_what_it_does_with_an_example(path: tuple[str, ...]) -> None:
    """And has --json."""
    result = invoke_here(*path, "--help")
    assert result.exit_code == 0
    assert f"Example: sojourn {path[0]}" in " ".join(result.stdout.split())
    assert "--json" in result.stdout


def test_help_loads_neither_database_nor_policy_engine() -> None:
    """Completion asks for it at every key."""
    code = (
        "import sys; from click.testing import CliRunner; from broker.command import root\n"
        f"for name in {OWN}: assert CliRunner().invoke(root, [name, '--help']).exit_code == 0\n"
        "heavy = {'aiohttp', 'asyncpg', 'cedarpy', 'grpclib', 'pydantic', 'sqlite3', 'cryptography'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "[]\n"


def test_every_verb_may_be_given() -> None:
    """The list stands twice, so that help is fast."""
    assert set(VERBS) == set(Verb)
    assert set(OWN) <= set(COMMANDS)


def test_policies_are_checked_as_one_set(tmp_path: Path) -> None:
    """Every fault of every file is told, each on its own line."""
    assert invoke_here("policy", "check", CONFIG / "policies").exit_code == 0
    (tmp_path / "a.cedar").write_text("permit (principal, action, resource);")
    (tmp_path / "b.cedar").write_text(
        '@id("x") permit (principal, action, resource) when { context.claimed.confidence > 1 };'
    )
    result = invoke_here("policy", "check", tmp_path)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if not line.startswith("error: ")] == []
    assert "a.cedar:1" in result.stderr
    assert "context.claimed" in result.stderr


def test_cases_of_policies_are_run(tmp_path: Path) -> None:
    """A case that comes out otherwise is exit code 1, with why."""
    assert invoke_here("policy", "test", CONFIG / "policies").exit_code == 0
    example = (CONFIG / "policies" / "example.cedar").read_text()
    (tmp_path / "example.cedar").write_text(example)
    cases = (CONFIG / "policies" / "tests.yaml").read_text().replace("expect: permit", "expect: deny", 1)
    (tmp_path / "tests.yaml").write_text(cases)
    result = invoke_here("policy", "test", tmp_path, "--json")
    assert result.exit_code == 1
    assert sum(not one["holds"] for one in json.loads(result.stdout)) == 1


def test_a_decision_is_explained_offline() -> None:
    """By whom, why, and what would have helped."""
    asked = ("policy", "explain", "--agent", AGENT, "--role", "orders-db/owner", "--json")
    permitted = invoke_here(*asked)
    assert json.loads(permitted.stdout)["effect"] == "permit"
    denied = invoke_here(*asked, "--sensitivity", "confidential", "--strength", "weak-peer")
    assert denied.exit_code == 1
    assert json.loads(denied.stdout)["policies"] == ["starter.weak-peer"]
    outside = json.loads(invoke_here(*asked, "--scope", "other/*").stdout)
    assert outside["policies"] == ["scope"]
    assert outside["nearest"]
    opening = invoke_here("policy", "explain", "--agent", AGENT, "--ceiling", "confidential", "--lasts", "1h")
    assert opening.exit_code == 0
    assert invoke_here("policy", "explain", "--agent", "nobody").exit_code == 1


@pytest.mark.parametrize("name", ["broker.yaml", "attestor-server.yaml", "node-agent.yaml"])
def test_a_reference_is_well(name: str) -> None:
    """Its kind is told from its name."""
    assert invoke_here("config", "check", CONFIG / name).exit_code == 0


def test_every_fault_of_a_settings_file_is_told(tmp_path: Path) -> None:
    """File, line, key, what was expected; exit code 2."""
    path = tmp_path / "my.yaml"
    path.write_text("database: 5\nadmin_sockets: /x\n")
    assert invoke_here("config", "check", path).exit_code == 2
    result = invoke_here("config", "check", path, "--kind", "broker")
    assert result.exit_code == 2
    assert f"{path}:1: database: expected a text" in result.stderr
    assert f"{path}:2: admin_sockets: unknown key, did you mean `admin_socket`?" in result.stderr


@pytest.mark.parametrize(
    ("bare", "wanted", "words"),
    [
        (("a/x", "a/y"), (), "two databases"),
        (("ssh/x",), (), "how is the command to get"),
        (("none/x",), (), "no role"),
        ((), ("V=a/x:f", "V=a/y:f"), "two secrets want the variable `V`"),
    ],
)
def test_a_secret_without_a_way_is_told_before_it_is_asked_for(
    bare: tuple[str, ...], wanted: tuple[str, ...], words: str
) -> None:
    """No lease is made that nobody could use."""
    engines = {"a/x": POSTGRES, "a/y": POSTGRES, "ssh/x": "ssh"}
    with pytest.raises(Malformed, match=words):
        check(bare, [Wanted.parse(one, Delivery.VARIABLE) for one in wanted], engines)
