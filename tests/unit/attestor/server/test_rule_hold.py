"""A changed rule file that would take identities from many waits for a word; one that gives, or takes few, doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attestor.server.dry_run import DryRun
from attestor.server.rule_hold import RuleHold
from fakes.attestor_parts import attestation, parts, wants

KEPT = '  - {name: orders, nodes: [node:name:n], when: ["unix:uid:7"], spiffe_id: /orders}\n'
LOST = '  - {name: parent, nodes: [node:name:n], when: ["unix:uid:8"], spiffe_id: /parent}\n'
RULES = f"rules:\n{KEPT}{LOST}"


async def lived_in(server: Any) -> None:
    """Two processes that have the second identity, and one that has the first."""
    node = await server.join("n")
    for uid, path in ((7, "/orders"), (8, "/parent"), (8, "/parent")):
        await server.workloads.sign(node, [wants(path, attestation(f"unix:uid:{uid}"))], server.clock.now())


def hold_of(server: Any, most: int) -> RuleHold:
    """One that lets so many lose an identity."""
    return RuleHold(server.rules, DryRun(server.database, server.rules), most)


async def test_what_takes_many_identities_waits_for_a_word(tmp_path: Path) -> None:
    """The former rules stay in force and it is said why, tick after tick; confirmed, the new ones hold."""
    async with parts(tmp_path, RULES) as server:
        await lived_in(server)
        hold, before = hold_of(server, 1), server.rules.current
        (tmp_path / "rules.yaml").write_text(f"rules:\n{KEPT}")
        for _ in range(3):
            await hold.tick(server.clock.now())
            assert server.rules.current is before
        (said,) = hold.trouble
        assert said.startswith("held: 2 of 3 live instances")
        assert "--confirm" in said
        await hold.again()
        assert server.rules.current is before
        await hold.again(confirm=True)
        assert [rule.name for rule in server.rules.current.rules] == ["orders"]
        assert hold.trouble == ()
        await hold.tick(server.clock.now())
        assert hold.held is None


@pytest.mark.parametrize(
    ("most", "text"),
    [(2, f"rules:\n{KEPT}"), (0, f"{RULES}{LOST.replace('parent', 'more')}"), (0, RULES.replace("parent,", "other,"))],
    ids=["few", "more is given", "another name"],
)
async def test_what_takes_few_or_none_is_in_force_at_once(tmp_path: Path, most: int, text: str) -> None:
    """At the next look."""
    async with parts(tmp_path, RULES) as server:
        await lived_in(server)
        hold, before = hold_of(server, most), server.rules.current
        (tmp_path / "rules.yaml").write_text(text)
        await hold.tick(server.clock.now())
        assert server.rules.current.version != before.version or server.rules.current.rules != before.rules
        assert hold.trouble == ()


async def test_a_mended_file_is_judged_anew(tmp_path: Path) -> None:
    """Held, then written again as it was: nothing is held any more, and nothing happened."""
    async with parts(tmp_path, RULES) as server:
        await lived_in(server)
        hold, before = hold_of(server, 0), server.rules.current
        (tmp_path / "rules.yaml").write_text("rules: []\n")
        await hold.tick(server.clock.now())
        assert hold.held is not None
        (tmp_path / "rules.yaml").write_text(RULES)
        await hold.tick(server.clock.now())
        assert hold.trouble == ()
        assert server.rules.current.version == before.version


async def test_a_file_with_a_fault_is_refused_and_holds_nothing(tmp_path: Path) -> None:
    """As without a hold: the former rules stay, and the fault is told with its place."""
    async with parts(tmp_path, RULES) as server:
        await lived_in(server)
        hold, before = hold_of(server, 0), server.rules.current
        (tmp_path / "rules.yaml").write_text("rules: 5")
        await hold.tick(server.clock.now())
        assert (hold.held, server.rules.current) == (None, before)
        assert "expected a list" in hold.trouble[0]
