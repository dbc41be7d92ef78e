"""Files into a policy set: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.policy import source
from broker.policy.source import BadPolicy, PolicyHolder, PolicySource
from broker.policy.statements import statements
from fakes.nouns import NOW

GOOD = '@id("a") permit (principal, action, resource) when { context.attested.strength >= 3 };\n'
OTHER = '@id("b") @reason("never") forbid (principal, action == Action::"open", resource);\n'


def _faults(**texts: str) -> tuple[str, ...]:
    with pytest.raises(BadPolicy) as raised:
        source.parse({f"{name}.cedar": text for name, text in texts.items()})
    assert str(raised.value) == "; ".join(raised.value.faults)
    return raised.value.faults


def test_the_starter_set_is_a_good_set() -> None:
    """What ships can be loaded; each policy has its own sentence."""
    starter = source.starter()
    assert all(name.startswith("starter.") for name in starter.policies)
    assert len({policy.reason for policy in starter.policies.values()}) == len(starter.policies)


def test_every_fault_of_every_file_is_told_with_its_place() -> None:
    """File, line and policy: of the schema's, of ours, across files."""
    found = _faults(
        a=f'// a comment; "with" signs\n\n{GOOD}\npermit (principal, action, resource);\n'
        '@id("c")\n  forbid (principal, action, resource) when { context.attested.strnth == 1 };\n',
        b=GOOD,
    )
    assert found[0] == 'a.cedar:5: policy `policy1`: has no `@id("…")`, expected one by which its decisions are told'
    assert 'a.cedar:6: policy `c`: attribute `attested.strnth` in context for Action::"open" not found' in found
    assert found[-1] == "b.cedar:1: policy `a`: its `@id` is taken by the policy at a.cedar:3"


def test_what_cannot_be_read_is_found_statement_by_statement() -> None:
    """Cedar gives no place for a syntax error; each broken statement is named by its line."""
    found = _faults(a=f"{GOOD}\npermit (princ, action, resource);\n{OTHER}permit (principal")
    assert [fault.split(" ")[0] for fault in found] == ["a.cedar:3:", "a.cedar:5:"]


def test_a_set_that_permits_nothing_because_it_is_empty_is_a_mistake(tmp_path: Path) -> None:
    """No policy at all, no file at all."""
    assert _faults(a="// nothing\n") == ("there is no policy, so nothing would ever be permitted",)
    with pytest.raises(BadPolicy, match=r"has no file `\*\.cedar`"):
        PolicySource.of(tmp_path).load()
    with pytest.raises(BadPolicy, match="can't be read: No such file"):
        PolicySource.of(tmp_path / "gone.cedar").load()


def test_files_and_folders(tmp_path: Path) -> None:
    """A folder's `*.cedar` files count, others don't; a file that is named twice counts once."""
    (tmp_path / "a.cedar").write_text(GOOD)
    (tmp_path / "b.cedar").write_text(OTHER)
    (tmp_path / "notes.txt").write_text("not Cedar")
    assert set(PolicySource.of(tmp_path, tmp_path / "a.cedar").load().policies) == {"a", "b"}


def test_what_is_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    """The sentence names the file."""
    file = tmp_path / "a.cedar"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(BadPolicy, match=r"a\.cedar: is not UTF-8"):
        PolicySource.of(file).load()
    file.write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(BadPolicy, match="larger than"):
        PolicySource.of(file).load()


def test_a_file_that_changes_while_it_is_read_is_refused() -> None:
    """Half a set may be a valid set without its forbids. A file of /proc says it is empty and is not."""
    with pytest.raises(BadPolicy, match="changed while it was read"):
        PolicySource.of("/proc/version").load()


def test_the_version_is_of_the_content() -> None:
    """Not of names or order; any change of a letter is another version."""
    version = source.parse({"a": GOOD, "b": OTHER}).version
    assert version == source.parse({"x": OTHER, "y": GOOD}).version
    assert version != source.parse({"a": GOOD, "b": OTHER.replace("never", "Never")}).version
    assert version != source.parse({"a": GOOD + OTHER}).version
    assert len(version) == 64


def test_a_bad_set_never_replaces_a_good_one(tmp_path: Path) -> None:
    """The set in force stays, the fault is told; mended, the new one holds."""
    file = tmp_path / "a.cedar"
    file.write_text(GOOD)
    holder = PolicyHolder(PolicySource.of(file))
    first = holder.current
    file.write_text("permit (principal, action, resource);")
    failed = holder.reload(NOW)
    assert holder.current is first
    assert (failed.changed, failed.version) == (False, first.version)
    assert failed.problem is not None
    assert "has no `@id" in str(failed.problem)
    file.unlink()
    assert holder.reload(NOW).problem is not None
    assert holder.current is first
    file.write_text(GOOD)
    same = holder.reload(NOW)
    assert (same.changed, same.problem) == (False, None)
    assert holder.current is first
    file.write_text(GOOD + OTHER)
    assert holder.reload(NOW).changed
    assert set(holder.current.policies) == {"a", "b"}


def test_there_is_no_holder_of_a_bad_set(tmp_path: Path) -> None:
    """A broker doesn't start without policies it can read; without a source it begins with the starter set."""
    with pytest.raises(BadPolicy):
        PolicyHolder(PolicySource.of(tmp_path))
    assert PolicyHolder(None).current.version == source.starter().version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a;b;", [(1, "a;"), (1, "b;")]),
        ("// x;\n\na;\n", [(3, "a;")]),
        ('@id("x;y")\np;\nq', [(1, '@id("x;y")\np;'), (3, "q")]),
        ('@id("a\\"; // b") p; q;', [(1, '@id("a\\"; // b") p;'), (1, "q;")]),
        ('a "never closed; ', [(1, 'a "never closed; ')]),
        ("a // b;\n;", [(1, "a // b;\n;")]),
    ],
)
def test_statements_and_their_lines(text: str, expected: list[tuple[int, str]]) -> None:
    """Signs in comments and texts end nothing."""
    assert list(statements(text)) == expected
