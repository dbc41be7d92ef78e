"""Settings: every fault with its line, its key and what was expected; nothing guessed, no secret repeated."""

from __future__ import annotations

import os
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import Field

from ca.runtime.document import DEEPEST, LARGEST, read
from ca.runtime.secret import Reference
from ca.runtime.settings import BadSettings, Duration, SecretReference, Settings, load, loads, parsed_by, read_tree
from ca.spiffe.id import TrustDomain


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Postgres(Settings):
    kind: Literal["postgres"]
    host: str
    password: SecretReference | None = None


class Static(Settings):
    kind: Literal["static"]
    size: int = Field(default=1, ge=1, le=10)


class Example(Settings):
    trust_domain: Annotated[TrustDomain, parsed_by(TrustDomain.parse)] = TrustDomain("example.org")
    lifetime: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(hours=2))] = timedelta(hours=1)
    folder: Path = Path("/var")
    colour: Colour = Colour.RED
    count: int = 3
    ratio: float = 1.0
    verbose: bool = False
    names: tuple[str, ...] = ()
    targets: dict[str, Annotated[Postgres | Static, Field(discriminator="kind")]] = Field(default_factory=dict)
    many: tuple[Static, ...] = ()
    password: SecretReference | None = None


def faults(text: str) -> list[str]:
    """The faults of `text`, without the name of the file."""
    with pytest.raises(BadSettings) as caught:
        loads(text, "x.yaml", Example)
    assert all(fault.startswith("x.yaml") for fault in caught.value.errors)
    return [fault.removeprefix("x.yaml:") for fault in caught.value.errors]


def test_every_kind_of_value_is_read() -> None:
    """Texts become values of our own types, once."""
    settings = loads(
        "trust_domain: prod.example.org\nlifetime: 1h30m\nfolder: /srv\ncolour: blue\ncount: -4\nratio: 2\n"
        "verbose: true\nnames: [a, b]\ntargets:\n  orders: {kind: postgres, host: db, password: env:PG}\n"
        "many:\n- {kind: static, size: 7}\n",
        "x.yaml",
        Example,
    )
    assert settings.trust_domain == TrustDomain("prod.example.org")
    assert settings.lifetime == timedelta(minutes=90)
    assert (settings.folder, settings.colour, settings.count) == (Path("/srv"), Colour.BLUE, -4)
    assert (settings.ratio, settings.verbose, settings.names) == (2.0, True, ("a", "b"))
    assert settings.targets["orders"] == Postgres(kind="postgres", host="db", password=Reference("env", "PG"))
    assert settings.many == (Static(kind="static", size=7),)


def test_an_empty_file_is_all_defaults() -> None:
    """Nothing said is nothing wrong, where everything has a default."""
    assert loads("# nothing\n", "x.yaml", Example) == Example()


def test_settings_are_frozen() -> None:
    """What was checked stays as it was checked."""
    settings = Example()
    with pytest.raises(ValueError, match="frozen"):
        settings.count = 4


def test_every_fault_is_reported_in_the_order_of_lines() -> None:
    """One run tells everything that has to be mended."""
    assert faults("count: many\nverbose: 1\nratio: x\nnames: a\ncolour: green\nfolder: 4\n") == [
        "1: count: expected a whole number",
        "2: verbose: expected true or false",
        "3: ratio: expected a number",
        "4: names: expected a list",
        "5: colour: expected `red` or `blue`",
        "6: folder: expected a text; a number is quoted",
    ]


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    """At every depth, also inside a union."""
    assert faults("lifetme: 1h\n") == ["1: lifetme: unknown key, did you mean `lifetime`?"]
    assert faults("targets:\n  a:\n    kind: postgres\n    host: h\n    pasword: env:A\n") == [
        "5: targets.a.pasword: unknown key, did you mean `password`?"
    ]
    assert faults("many:\n- kind: static\n  siz: 1\n") == ["3: many[0].siz: unknown key, did you mean `size`?"]


def test_an_unknown_key_far_from_all_lists_what_is_known() -> None:
    """Somebody who guesses is told the choices."""
    (fault,) = faults("many:\n- kind: static\n  zzzzzz: 1\n")
    assert fault == "3: many[0].zzzzzz: unknown key, expected one of `kind`, `size`"


def test_a_missing_key_is_named_where_it_should_stand() -> None:
    """The line is that of the key whose mapping lacks it."""
    assert faults("count: 1\ntargets:\n  a:\n    kind: postgres\n") == ["3: targets.a.host: is required"]


def test_a_wrong_branch_of_a_union_is_one_fault() -> None:
    """The discriminator is what is wrong, not every key under it."""
    assert faults("targets:\n  a: {kind: oracle}\n  b: {}\n") == [
        "2: targets.a: expected `kind` to be one of `postgres`, `static`",
        "3: targets.b: `kind` is required",
    ]


def test_bounds_are_told_in_the_units_of_the_operator() -> None:
    """Not in Python's."""
    assert faults("lifetime: 0s\nmany: [{kind: static, size: 11}]\n") == [
        "1: lifetime: expected greater than `0s`",
        "2: many[0].size: expected less than or equal to 10",
    ]
    assert faults("lifetime: 3h\n") == ["1: lifetime: expected less than or equal to `7200s`"]


def test_the_sentence_of_a_parser_is_the_fault() -> None:
    """A parser of ours says what it expected."""
    (fault,) = faults("trust_domain: EXAMPLE.org\n")
    assert fault.startswith("1: trust_domain: `EXAMPLE.org` is not a trust domain")
    assert faults("trust_domain: [a]\n") == ["1: trust_domain: expected a text"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("2d", timedelta(days=2)),
        ("1d2h3m4s5ms", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
    ],
)
def test_a_length_of_time_has_units(text: str, expected: timedelta) -> None:
    """Days to milliseconds, largest first."""

    class Timed(Settings):
        value: Duration

    assert loads(f"value: {text}", "x.yaml", Timed).value == expected


@pytest.mark.parametrize("text", ["90", "1.5h", "-1s", "1s1h", "''", "1 h", "5 minutes", "s", "[1s]", "1H"])
def test_a_length_of_time_without_a_clear_unit_is_refused(text: str) -> None:
    """A bare number has no meaning."""
    (fault,) = faults(f"lifetime: {text}\n")
    assert fault == "1: lifetime: expected a length of time with its unit, as in `90s`, `1h30m` or `500ms`"


@pytest.mark.parametrize("value", ["hunter2", "'hunter2'", "12345", "[hunter2]", "file:hunter2", "010203"])
def test_a_secret_written_into_the_settings_is_refused_and_not_repeated(value: str) -> None:
    """It would otherwise end in a log, on a screen, in a ticket."""
    for text in (f"password: {value}\n", f"targets:\n  a: {{kind: postgres, host: h, password: {value}}}\n"):
        joined = "\n".join(faults(text))
        assert "password" in joined
        assert not any(secret in joined for secret in ("hunter2", "12345", "010203"))


def test_a_default_made_in_code_is_not_read_again() -> None:
    """Composition roots build settings from values."""
    assert Example(password=Reference("env", "A"), lifetime=timedelta(minutes=1)).password == Reference("env", "A")


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "NO", "True", "FALSE"])
def test_words_that_are_booleans_only_to_some_are_refused(word: str) -> None:
    """Norway is not false."""
    assert faults(f"verbose: {word}\n") == [
        f"1: verbose: `{word}` is not a boolean everywhere: write true or false, or quote it"
    ]
    assert read_tree(f"a: '{word}'", "x.yaml") == {"a": word}


@pytest.mark.parametrize(
    "number", ["010", "0o10", "0x1f", "0b1", "1_000", "+5", "1e3", ".5", "5.", ".inf", "-.INF", ".nan", "1" * 19]
)
def test_numbers_with_more_than_one_meaning_are_refused(number: str) -> None:
    """Octal, hexadecimal, underscores, exponents, and those that fit into no integer."""
    assert faults(f"count: {number}\n")[0].endswith("is no plain decimal number: write it out, or quote it")


@pytest.mark.parametrize("number", ["12:30", "1:2:3", "190:20:30.15", "-1:30"])
def test_sexagesimal_numbers_are_refused(number: str) -> None:
    """A time of day is a text, when quoted."""
    assert faults(f"count: {number}\n")[0].endswith("may be read as a number of base 60: quote it")


def test_a_key_given_twice_is_refused_with_both_lines() -> None:
    """Neither silently wins, at any depth."""
    assert faults("count: 1\ncount: 2\n") == ["2: count: given twice, first in line 1"]
    assert faults("targets:\n  a: {kind: static}\n  b: {kind: static}\n  a: {kind: static}\n") == [
        "4: targets.a: given twice, first in line 2"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x 1\nb: *x\n", "anchors are not read"),
        ("a: !!python/object/apply:os.system [id]\n", "tags are not read"),
        ("a: !local 1\n", "tags are not read"),
        ("<<: {a: 1}\n", "merge keys are not read"),
        ("%YAML 1.1\n---\na: 1\n", "directives"),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("5: a\n", "expected a text as the key"),
        ("null: a\n", "expected a text as the key"),
        ("? [a]\n: b\n", "expected a text as the key"),
        ("a: [\n", "not YAML"),
        ("a: b: c\n", "not YAML"),
        ("a: '\x01'\n", "not YAML"),
        ("a:\tb\n\t- c\n", "not YAML"),
        ("- 1\n", "expected a mapping"),
    ],
)
def test_what_yaml_can_do_beyond_saying_something_is_refused(text: str, words: str) -> None:
    """Aliases, tags, directives, merges, several documents, keys that aren't texts."""
    assert any(words in fault for fault in faults(text))


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    """Nothing is expanded."""
    lines = ["a0: &a0 [x, x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    assert any("aliases are not read" in fault for fault in faults("\n".join(lines)))


def test_deep_nesting_is_refused() -> None:
    """The tree's depth is bounded, so is ours."""
    assert "nested more than" in faults("count: " + "[" * 5000 + "]" * 5000)[0]
    assert read_tree("[" * DEEPEST + "]" * DEEPEST, "x.yaml")


def test_every_refusal_of_the_reader_is_reported_at_once() -> None:
    """Also when the text ends in a syntax error."""
    found = faults("a: no\nb: 010\nb: 1\nc: [\n")
    assert [fault.partition(":")[0] for fault in found] == ["1", "2", "3", "5"]


def test_a_file_is_bounded_and_regular(tmp_path: Path) -> None:
    """Too large, absent, a folder, a pipe, not UTF-8: each is a sentence with the file's name."""
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST + 1))
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: \xe4\n")
    for path, words in (
        (large, "longer than"),
        (tmp_path / "absent.yaml", "no such file"),
        (tmp_path, "regular file"),
        (pipe, "regular file"),
        (latin, ":2: not UTF-8"),
    ):
        with pytest.raises(BadSettings, match=words) as caught:
            load(path, Example)
        assert str(path) in str(caught.value)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    """From disk, with a link in the way, as Kubernetes mounts it."""
    real = tmp_path / "real.yaml"
    real.write_text("count: 12\n")
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    assert load(link, Example).count == 12


def test_a_document_knows_the_line_of_each_node() -> None:
    """Those who check a tree themselves can still say where."""
    document = read("a:\n  - b: 1\n  - c:\n      d: 2\n", "x.yaml")
    assert document.at(("a", 1, "c", "d")) == "x.yaml:4: a[1].c.d"
    assert document.at(("a", 1, "c", "absent")) == "x.yaml:3: a[1].c.absent"


@given(some.text(max_size=200))
def test_no_text_makes_the_reader_fail_otherwise(text: str) -> None:
    """Whatever stands in a file, it is a tree or a BadSettings."""
    try:
        read_tree(text, "x.yaml")
    except BadSettings:
        return


LEAF = some.none() | some.booleans() | some.integers(-(10**17), 10**17) | some.text("abc é\n:#-'\"", max_size=8)
TREE = some.recursive(
    LEAF,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text("abc", max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(TREE)
def test_what_yaml_writes_with_quotes_is_read_back(tree: object) -> None:
    """JSON is YAML: a tree written as JSON comes back as it was."""
    import json

    assert read_tree(json.dumps(tree), "x.yaml") == tree
