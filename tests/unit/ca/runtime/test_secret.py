"""A Secret shows itself to nobody by accident; a Reference says where one rests."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import traceback
from pathlib import Path

import pytest

from ca.errors import Malformed
from ca.runtime.secret import Reference, Secret, sounds_secret

VALUE = "hunter2-correct-horse"


def test_no_form_of_text_shows_it() -> None:
    """repr, str, format with any spec, and the repr of what holds it."""

    @dataclasses.dataclass
    class Holder:
        password: Secret

    secret = Secret(VALUE)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>80}",
        f"{secret!r}",
        repr(Holder(secret)),
        repr([secret]),
    ]
    assert not any("hunter2" in text for text in shown)


def test_it_can_not_be_copied_out() -> None:
    """pickle, copy, JSON, and the generic way to an object's state."""
    secret = Secret(VALUE)
    for take in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, lambda held: held.__getstate__()):
        with pytest.raises(TypeError) as caught:
            take(secret)
        assert "hunter2" not in str(caught.value)


def test_its_one_way_out_is_reveal() -> None:
    """By that word every place can be found."""
    assert Secret(VALUE).reveal() == VALUE
    assert not hasattr(Secret(VALUE), "__dict__")


def test_equal_secrets_are_equal_and_hash_alike() -> None:
    """The contract of hashing holds; comparing with a text does not."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a").matches("a")
    assert not Secret("a").matches("b")
    assert not Secret("")


@pytest.mark.parametrize("text", ["", "hunter2", "file:", "env:", "file:relative", "http://x/y", "FILE:/x", ":x"])
def test_what_is_no_reference_is_refused_without_repeating_it(text: str) -> None:
    """A password written there by mistake must not reach a log."""
    with pytest.raises(Malformed) as caught:
        Reference.parse(text)
    assert "hunter2" not in str(caught.value)


def test_a_reference_reads_a_file(tmp_path: Path) -> None:
    """Without the one line break editors put at the end."""
    for content, expected in ((b"abc\n", "abc"), (b"abc\r\n", "abc"), (b"abc\n\n", "abc\n"), (" ü ".encode(), " ü ")):
        path = tmp_path / "secret"
        path.write_bytes(content)
        assert Reference.parse(f"file:{path}").read().reveal() == expected


def test_a_reference_reads_the_environment() -> None:
    """By its name."""
    os.environ["SOJOURN_TEST_SECRET"] = VALUE
    assert Reference.parse("env:SOJOURN_TEST_SECRET").read().reveal() == VALUE


def test_nothing_there_is_a_sentence(tmp_path: Path) -> None:
    """Absent, empty, too long, a folder."""
    empty = tmp_path / "empty"
    empty.write_bytes(b"\n")
    large = tmp_path / "large"
    large.write_bytes(b"x" * (64 * 1024 + 1))
    for name, words in (
        (f"file:{tmp_path}/absent", "no such file"),
        (f"file:{empty}", "is empty"),
        (f"file:{large}", "longer than"),
        (f"file:{tmp_path}", "is a directory"),
        ("env:SOJOURN_TEST_ABSENT", "has no"),
    ):
        with pytest.raises(Malformed, match=words):
            Reference.parse(name).read()


def test_a_secret_that_is_not_utf8_is_in_no_exception(tmp_path: Path) -> None:
    """Python's decoding error carries what it could not decode; ours carries nothing."""
    path = tmp_path / "binary"
    path.write_bytes(b"hunter2\xff")
    with pytest.raises(Malformed, match="not UTF-8") as caught:
        Reference.parse(f"file:{path}").read()
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in "".join(traceback.format_exception_only(error))
        assert not isinstance(error, UnicodeError)
        error = error.__context__


@pytest.mark.parametrize(
    "name", ["password", "pg_password", "client_secret", "Authorization", "key_der", "apikey", "tokens"]
)
def test_names_that_sound_secret(name: str) -> None:
    """The second wall."""
    assert sounds_secret(name)


@pytest.mark.parametrize("name", ["token_id", "key_id", "path", "lease", "secret_kind", "keyword"])
def test_names_that_only_mention_one(name: str) -> None:
    """What is about a secret may be told."""
    assert not sounds_secret(name)
