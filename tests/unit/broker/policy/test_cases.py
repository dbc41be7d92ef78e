"""The example policies do what their cases say, and a case that doesn't hold says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.policy.cases import run_file
from ca.errors import Malformed
from fakes.nouns import NOW

_OPENS = "    act: { action: open }\n    expect: deny\n"
EXAMPLE = Path(__file__).parents[4] / "config" / "policies"


def test_every_case_of_the_example_holds() -> None:
    """`config/policies` is read, judged and right; every policy of it decides at least one case."""
    outcomes = run_file(EXAMPLE / "tests.yaml", NOW)
    assert [f"{outcome.case}: {outcome.trouble}" for outcome in outcomes if not outcome.holds] == []
    deciding = {name for outcome in outcomes for name in outcome.decision.policies}
    written = {
        line.split('"')[1] for line in (EXAMPLE / "example.cedar").read_text().splitlines() if line.startswith("@id")
    }
    assert written <= deciding


def _file(folder: Path, case: str) -> Path:
    (folder / "a.cedar").write_text('@id("a") permit (principal, action, resource);')
    file = folder / "tests.yaml"
    head = "policies: [a.cedar]\ntrust_domain: example.org\nroles:\n  db/a: { engine: postgres, sensitivity: public }\n"
    file.write_text(
        f"{head}cases:\n  - name: one\n    agent: spiffe://example.org/a\n    scope: {{ roles: [db/*] }}\n{case}"
    )
    return file


@pytest.mark.parametrize(
    ("case", "trouble"),
    [
        ("    act: { action: obtain, resource: db/a }\n    expect: permit\n    by: [a]\n", ""),
        (
            "    act: { action: obtain, resource: db/a }\n    expect: deny\n",
            "expected `deny`, was `permit` by `a`: permitted by the policy `a`",
        ),
        (
            "    act: { action: obtain, resource: db/a }\n    expect: permit\n    by: [b]\n",
            "expected to be decided by `b`, was by `a`",
        ),
        (
            "    act: { action: obtain, resource: db/a, tool: sql }\n    expect: deny\n    nearest: [magic]\n",
            "expected the nearest changes `magic`",
        ),
    ],
)
def test_what_a_case_says_of_itself(tmp_path: Path, case: str, trouble: str) -> None:
    """Effect, deciding policies and nearest changes are compared."""
    (outcome,) = run_file(_file(tmp_path, case), NOW)
    assert outcome.holds is (not trouble)
    assert outcome.trouble.startswith(trouble)


@pytest.mark.parametrize(
    "case",
    [
        "    act: { action: obtain, resource: db/b }\n    expect: deny\n",
        "    act: { action: destroy }\n    expect: deny\n",
        "    act: { action: open }\n    expect: maybe\n",
        "    act: { action: open }\n    expects: deny\n",
        _OPENS + "  - name: one\n    agent: spiffe://example.org/a\n" + _OPENS,
    ],
)
def test_a_case_that_cannot_be_read_is_no_case(tmp_path: Path, case: str) -> None:
    """An unknown role, action, effect or key, or a name used twice, would be a test that can't fail."""
    with pytest.raises(Malformed):
        run_file(_file(tmp_path, case), NOW)
