"""A changed rule file, before it is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestor.errors import BadRules
from attestor.server.dry_run import DryRun
from attestor.wire.node import Signed
from fakes.attestor_parts import attestation, parts, wants

RULES = """\
rules:
  - {name: orders, nodes: [node:name:n], when: ["unix:uid:7"], spiffe_id: /orders}
  - {name: parent, nodes: [node:name:n], when: ["unix:uid:8"], spiffe_id: /parent}
"""


async def test_it_says_who_would_lose_and_gain_and_changes_nothing(tmp_path: Path) -> None:
    """Of the instances that got a credential, by what they were found to be then."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one, other = attestation("unix:uid:7"), attestation("unix:uid:8")
        for of, path in ((one, "/orders"), (other, "/parent")):
            (signed,) = await server.workloads.sign(node, [wants(path, of)], server.clock.now())
            assert isinstance(signed, Signed)
        before = server.rules.current
        run = DryRun(server.database, server.rules)
        changed = RULES.replace('"unix:uid:7"', '"unix:uid:8"')
        found = await run.foresee(tmp_path / "rules.yaml", changed)
        assert (found.looked_at, found.losing, found.gaining, found.affected) == (2, 1, 1, 2)
        assert [known.instance for known, _ in found.told] == [one.instance, other.instance]
        assert [each.path for each in found.told[0][1].loses] == ["/orders"]
        assert [each.path for each in found.told[1][1].gains] == ["/orders"]
        assert found.rules.changed == ("orders",)
        assert server.rules.current is before
        same = await run.foresee(tmp_path / "rules.yaml", RULES)
        assert (same.affected, same.version) == (0, before.version)


async def test_what_would_be_refused_is_refused(tmp_path: Path) -> None:
    """A fault in the draft, and a file that no setting names."""
    async with parts(tmp_path, RULES) as server:
        run = DryRun(server.database, server.rules)
        with pytest.raises(BadRules, match="reserved"):
            await run.foresee(tmp_path / "rules.yaml", RULES.replace("/orders", "/task/1"))
        with pytest.raises(BadRules, match="no setting names this file"):
            await run.foresee(tmp_path / "other.yaml", RULES)


async def test_a_child_is_foreseen_as_a_child(tmp_path: Path) -> None:
    """What its ancestor was given is not its own by the new rules either."""
    rules = RULES + '  - {name: child, nodes: [node:name:n], when: ["unix:uid:9"], spiffe_id: /child}\n'
    async with parts(tmp_path, rules) as server:
        node = await server.join("n")
        parent = attestation("unix:uid:8")
        child = attestation("unix:uid:9", ancestors=(parent.instance,))
        for of, path in ((parent, "/parent"), (child, "/child")):
            await server.workloads.sign(node, [wants(path, of)], server.clock.now())
        draft = rules.replace('["unix:uid:8"]', '[{any: ["unix:uid:8", "unix:uid:9"]}]')
        found = await DryRun(server.database, server.rules).foresee(tmp_path / "rules.yaml", draft)
        assert [known.instance for known, shift in found.told if shift.gains] == []
