"""The rules in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestor.errors import BadRules
from attestor.server.rule_source import RuleSource
from fakes.attestor_parts import TERMS
from fakes.clock import ManualClock

RULE = """\
rules:
  - name: a
    nodes: [node:name:n]
    when: [unix:uid:7]
    spiffe_id: /a
"""


async def test_a_bad_file_never_replaces_a_good_one(tmp_path: Path) -> None:
    """The former rules stay in force, the trouble is kept for whoever asks, and goes with the next good file."""
    file, clock, woken = tmp_path / "rules.yaml", ManualClock(), []
    file.write_text(RULE)
    source = RuleSource([file], TERMS)
    source.subscribe(lambda: woken.append(source.current.version))
    before = source.current
    for bad in ("rules: [", RULE.replace("/a", "/task/1"), "rules: 1", RULE + RULE.removeprefix("rules:\n")):
        file.write_text(bad)
        await source.tick(clock.now())
        assert source.current is before
        assert source.trouble
    file.write_text(RULE.replace("/a", "/b"))
    await source.tick(clock.now())
    assert source.trouble == ()
    assert woken == [source.current.version] != [before.version]


async def test_a_file_that_vanishes_takes_no_rule_with_it(tmp_path: Path) -> None:
    """An unreadable file is a bad file."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULE)
    source = RuleSource([file], TERMS)
    file.unlink()
    await source.tick(ManualClock().now())
    assert len(source.current.rules) == 1
    assert "can't be read" in source.trouble[0]


def test_a_server_does_not_start_with_bad_rules(tmp_path: Path) -> None:
    """There is no former good one."""
    with pytest.raises(BadRules, match="can't be read"):
        RuleSource([tmp_path / "missing.yaml"], TERMS)


async def test_a_folder_stands_for_its_files_by_name(tmp_path: Path) -> None:
    """One more file is one more part of the set."""
    (tmp_path / "20.yaml").write_text(RULE)
    (tmp_path / "notes.txt").write_text("not a rule")
    source = RuleSource([tmp_path], TERMS)
    (tmp_path / "10.yaml").write_text(RULE.replace("name: a", "name: first"))
    await source.tick(ManualClock().now())
    assert [rule.name for rule in source.current.rules] == ["first", "a"]


def test_unchanged_files_are_not_taken_for_new_ones(tmp_path: Path) -> None:
    """Reading the same again wakes nobody."""
    file, woken = tmp_path / "rules.yaml", []
    file.write_text(RULE)
    source = RuleSource([file], TERMS)
    source.subscribe(lambda: woken.append(1))
    assert source.reload()
    assert woken == []
