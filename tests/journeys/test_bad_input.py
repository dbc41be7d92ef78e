"""What can't be meant is refused by the real commands: which file, which line, which key, what was expected.

Exit code 2, nothing created, and never a traceback.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from ca.runtime.places import Places, make
from journeys.processes import Finished, short_folder, sojourn
from journeys.up import TRUST_DOMAIN, up, up_in

_SERVER = """\
trust_domain: example.org
admin_socket: {folder}/admin/server.sock
database: sqlite:{folder}/server.db
"""
_NODE_AGENT = """\
trust_domain: example.org
state: {folder}/node
workload_socket: {folder}/workload.sock
admin_socket: {folder}/admin/node.sock
"""
_BROKER = """\
admin_socket: {folder}/admin/broker.sock
database: sqlite:{folder}/broker.db
"""

CASES = {
    "server: malformed YAML": ("server", _SERVER + "rules: [a}}", 4, "", "YAML"),
    "server: unknown key": ("server", _SERVER + "trustdomain: x", 4, "trustdomain", "did you mean `trust_domain`"),
    "server: duplicate key": ("server", _SERVER + "database: sqlite:/x", 4, "database", "twice"),
    "server: trust domain": ("server", _SERVER.replace("example", "Example"), 1, "trust_domain", "expected only"),
    "server: no length of time": ("server", _SERVER + "beat: 5", 4, "beat", "with its unit"),
    "server: secret in clear text": ("server", _SERVER + "keys: {{seal: hunter2hunter2}}", 4, "keys.seal", "file:"),
    "server: key missing": ("server", _SERVER.partition("\n")[2], 1, "trust_domain", "is required"),
    "node agent: trust domain with a path": (
        "node-agent", _NODE_AGENT.replace("example.org", "spiffe://example.org/x"), 1, "trust_domain", "trust domain",
    ),
    "node agent: port": ("node-agent", _NODE_AGENT + "server: {{port: 70000}}", 5, "server.port", "65535"),
    "node agent: unknown key": ("node-agent", _NODE_AGENT + "unix: {{paths: true}}", 5, "unix.paths", "`path`"),
    "broker: SPIFFE ID": (
        "broker", _BROKER + "identity: spiffe://example.org/../broker", 3, "identity", "segment",
    ),
    "broker: target without a host": (
        "broker", _BROKER + "targets:\n  db:\n    engine: {{kind: postgres}}", 5, "targets.db.engine.host", "required",
    ),
}  # fmt: skip


def refused(found: Finished, folder: Path, kept: set[str]) -> None:
    """Exit code 2, nothing on stdout, no traceback, and no file that was not there before."""
    assert (found.code, found.out) == (2, "")
    assert "Traceback" not in found.err
    assert {path.name for path in folder.rglob("*")} == kept


@pytest.mark.parametrize("case", CASES)
async def test_settings_are_refused_with_file_line_and_key(case: str) -> None:
    """By the process they are for, before it makes anything."""
    command, text, line, key, expected = CASES[case]
    with short_folder() as folder:
        path = folder / "settings.yaml"
        path.write_text(text.format(folder=folder))
        found = await sojourn(command, "--config", str(path), folder=folder)
        refused(found, folder, {"settings.yaml"})
        place = f"{path}:{line}: {key}: " if key else f"{path}:{line}"
        said = [one for one in found.err.splitlines() if place in one]
        assert len(said) == 1, found.err
        assert expected in said[0]
        assert "hunter2" not in found.err


async def test_every_fault_is_told_at_once() -> None:
    """One line for each."""
    with short_folder() as folder:
        path = folder / "settings.yaml"
        path.write_text("trust_domain: X\nadmin_socket: 5\ndatabse: sqlite:/x\n")
        found = await sojourn("server", "--config", str(path), folder=folder)
        refused(found, folder, {"settings.yaml"})
        assert len(found.err.splitlines()) == 4


async def test_rules_that_reach_for_reserved_paths_are_refused() -> None:
    """At the start, with the place of each in the rule file."""
    with short_folder() as folder:
        rules, settings = folder / "rules.yaml", folder / "settings.yaml"
        rules.write_text(
            "rules:\n"
            '  - {name: a, nodes: ["node:*"], when: ["unix:uid:0"], spiffe_id: /sojourn/broker}\n'
            '  - {name: b, nodes: ["node:*"], when: ["unix:uid:0"], spiffe_id: /task/1}\n'
            '  - {name: c, when: ["unix:uid:0"], spiffe_id: "spiffe://other.org/x"}\n'
        )
        settings.write_text(_SERVER.format(folder=folder) + f"rules: [{rules}]\n")
        found = await sojourn("server", "--config", str(settings), folder=folder)
        refused(found, folder, {"rules.yaml", "settings.yaml"})
        faults = re.findall(rf"{rules}:(\d): rules\[?\.?\d\]?\.(\w+): ", found.err)
        assert sorted(faults) == [("2", "spiffe_id"), ("3", "spiffe_id"), ("4", "nodes"), ("4", "spiffe_id")]


async def test_a_rule_file_with_a_fault_never_replaces_a_good_one() -> None:
    """While it runs: the rules before stay in force, `rule list` says why."""
    async with up() as running:
        good = running.places.rules.read_text()
        running.places.rules.write_text("rules: [{name: x}]\n")
        async with running.admin() as admin:
            told = await admin.post("/v1/rules/reload")
        assert f"{running.places.rules}:1: rules[0].when: is required" in " ".join(told["trouble"])
        listed = await running.sojourn("rule", "list", "--json")
        assert f"agents-of-uid-{os.getuid()}" in listed.out
        assert (await running.sojourn("svid", "fetch")).code == 0
        running.places.rules.write_text(good)


async def test_a_second_up_on_the_same_state_is_refused() -> None:
    """With one sentence, and the first one goes on."""
    async with up() as running:
        found = await running.sojourn("up", "--state", str(running.places.state))
        assert (found.code, found.out) == (1, "")
        assert len(found.err.splitlines()) == 1
        assert "already up with this state" in found.err
        assert (await running.sojourn("svid", "fetch")).code == 0


async def test_up_keeps_to_the_trust_domain_it_began_with() -> None:
    """A store signed for one name is never served under another."""
    with short_folder() as folder:
        places = Places.of(folder / "up")
        async with up_in(places):
            pass
        found = await sojourn("up", "--state", str(places.state), "--trust-domain", "another.test", folder=folder)
        assert found.code == 1
        assert TRUST_DOMAIN in found.err


async def test_commands_say_what_to_do_when_nothing_runs() -> None:
    """Exit code 3, one sentence, for each that asks a running part."""
    with short_folder() as folder:
        environment = {"SOJOURN_STATE": str(folder / "none")}
        for command in (
            ("svid", "fetch"),
            ("svid", "write", str(folder / "files"), "--once"),
            ("jwt", "fetch", "--audience", "x"),
            ("jwt", "verify", "secret-token", "--audience", "x"),
            ("rule", "list"),
            ("rule", "explain", "--pid", str(os.getpid())),
            ("token", "create", "--output", str(folder / "token")),
        ):
            found = await sojourn(*command, folder=folder, environment=environment)
            assert (found.code, found.out) == (3, ""), command
            assert len(found.err.splitlines()) == 1
            assert "start it with: sojourn up" in found.err
            assert "secret-token" not in found.err
        assert list(folder.iterdir()) == []


async def test_a_dead_up_is_no_running_one() -> None:
    """Its file stays after kill -9; the socket nobody answers at is named."""
    with short_folder() as folder:
        places = Places.of(folder / "up")
        make(places.state)
        places.create()
        sockets = {"server": str(places.server_admin), "node_agent": str(places.node_agent_admin)}
        places.running.write_text(
            f'{{"workload_api": "unix://{places.workload_api}", "admin": {str(sockets).replace(chr(39), chr(34))}}}'
        )
        found = await sojourn("rule", "list", folder=folder, environment={"SOJOURN_STATE": str(places.state)})
        assert found.code == 3
        assert str(places.server_admin) in found.err
        places.running.chmod(0o666)
        found = await sojourn("rule", "list", folder=folder, environment={"SOJOURN_STATE": str(places.state)})
        assert found.code == 1
        assert "not believed" in found.err


async def test_a_killed_up_starts_again_although_its_number_is_in_use() -> None:
    """What kill -9 left behind names a process that may be another one by now: this one, here."""
    with short_folder() as folder:
        places = Places.of(folder / "up")
        async with up_in(places, stopped=False) as running:
            left = places.running.read_text()
            await running.running.end(signal.SIGKILL)
        assert places.running.read_text() == left
        places.running.write_text(left.replace(str(running.running.pid), str(os.getpid())))
        async with up_in(places) as again:
            assert (await again.sojourn("svid", "fetch")).code == 0
