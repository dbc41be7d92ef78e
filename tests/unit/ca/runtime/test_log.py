"""The log: one event per line, and four walls against secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from ca.errors import Denied, Malformed, Problem, Unavailable
from ca.runtime import log
from ca.runtime.secret import Secret

VALUE = "hunter2"
KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEA" + VALUE + "\n-----END PRIVATE KEY-----"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where this test's log goes; the root logger is put back afterwards."""
    root, names = logging.getLogger(), ("ca", "attestor", "broker")
    handlers, level, levels = list(root.handlers), root.level, [logging.getLogger(name).level for name in names]
    found = io.StringIO()
    log.setup("test", stream=found)
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(old)


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    """Every line so far."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def last(stream: io.StringIO) -> dict[str, Any]:
    """The newest line."""
    return written(stream)[-1]


def test_an_event_is_one_json_object(stream: io.StringIO) -> None:
    """With time, level, process, logger, event and its fields."""
    log.get("broker.x").info("task ended", task="t1", number=3, ratio=0.5, gone=True, nothing=None)
    found = last(stream)
    assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
    assert found == {
        "level": "info", "process": "test", "logger": "broker.x", "event": "task ended",
        "task": "t1", "number": 3, "ratio": 0.5, "gone": True, "nothing": None,
    }  # fmt: skip


def test_values_of_our_own_are_written_plainly(stream: io.StringIO) -> None:
    """Times, lengths, paths, lists and mappings."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    log.get("ca.x").info("e", at=moment, long=timedelta(seconds=90), path=Path("/a"), many=(1, {"a": "b"}))
    found = last(stream)
    assert (found["at"], found["long"], found["path"]) == ("2026-01-01T00:00:00+00:00", 90.0, "/a")
    assert found["many"] == [1, {"a": "b"}]


@dataclass
class Holder:
    password: Secret


@pytest.mark.parametrize(
    "fields",
    [
        {"value": Secret(VALUE)},
        {"value": [Secret(VALUE)]},
        {"value": Holder(Secret(VALUE))},
        {"value": VALUE.encode()},
        {"value": bytearray(VALUE.encode())},
        {"password": VALUE},
        {"client_secret": VALUE},
        {"value": {"token": VALUE}},
        {"value": {"deep": [{"Authorization": VALUE}]}},
        {"key_der": VALUE.encode()},
        {"value": KEY},
        {"value": KEY.replace("-----END", "")},
        {"value": f"Authorization: Bearer {VALUE}"},
        {"value": f"postgresql://user:{VALUE}@db/x"},
        {"value": f"host=db password={VALUE} user=x"},
        {"value": f"ALTER ROLE x PASSWORD = '{VALUE}'"},
        {"value": f"sj1.abc.{VALUE}.def"},
        {"value": f"got eyJhbGciOiJFUzI1NiJ9.{VALUE}.sig"},
        {"error": ValueError(VALUE)},
        {"error": OSError(5, "Input/output error", VALUE)},
        {"error": ExceptionGroup(VALUE, [ValueError(VALUE)])},
        {"error": Denied("no", password=VALUE)},
    ],
)
def test_no_secret_is_written(stream: io.StringIO, fields: dict[str, Any]) -> None:
    """Whatever it is wrapped in, for machines and for humans."""
    log.get("ca.x").error("e", **fields)
    log.setup("test", stream=stream, json=False)
    log.get("ca.x").error("e", **fields)
    assert stream.getvalue()
    assert VALUE not in stream.getvalue()


def test_a_problem_is_told_with_its_cause(stream: io.StringIO) -> None:
    """What only the log may know: the kind of the cause and where it came from."""

    def fails() -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    try:
        try:
            fails()
        except OSError as cause:
            raise Unavailable("the target `db` does not answer", port=5432) from cause
    except Problem as problem:
        log.get("ca.x").warning("e", error=problem)
    found = last(stream)["error"]
    assert (found["code"], found["says"], found["details"]) == (
        "unavailable", "the target `db` does not answer", {"port": 5432},
    )  # fmt: skip
    assert found["cause"]["type"] == "ConnectionRefusedError"
    assert found["cause"]["says"] == "Connection refused"
    assert any("fails" in place for place in found["cause"]["at"])


def test_a_foreign_exception_is_its_type_and_its_places(stream: io.StringIO) -> None:
    """Its text was written by others."""
    try:
        int(VALUE)
    except ValueError as error:
        log.get("ca.x").error("e", error=error)
    found = last(stream)["error"]
    assert set(found) == {"type", "at"}


def test_records_of_other_libraries_come_through_the_same_walls(stream: io.StringIO) -> None:
    """Only the first line of theirs, no text of their exceptions, and nothing below a warning."""
    foreign = logging.getLogger("aiohttp.server")
    foreign.info("chatter")
    try:
        int(VALUE)
    except ValueError:
        foreign.exception("handling failed for Bearer %s\nfuture: %s", VALUE, VALUE)
    (found,) = written(stream)
    assert found["event"] == "handling failed for Bearer ••••"
    assert found["error"]["type"] == "ValueError"
    assert VALUE not in stream.getvalue()


def test_a_line_break_forges_no_second_line(stream: io.StringIO) -> None:
    """Neither in JSON nor for a human; nor can a caller move the cursor."""
    evil = 'x\n{"level": "info", "event": "forged"}\r\x1b[2J\u202e'
    log.get("ca.x").info("e", purpose=evil)
    log.setup("test", stream=stream, json=False)
    log.get("ca.x").info("e", purpose=evil)
    assert len(stream.getvalue().splitlines()) == 2
    assert not {"\r", "\x1b", "\u202e"} & set(stream.getvalue().splitlines()[1])


def test_reserved_names_of_fields_are_kept_apart(stream: io.StringIO) -> None:
    """A field can't pretend to be the head of the line."""
    log.get("ca.x").info("e", level="error", process="other", time="never")
    found = last(stream)
    assert (found["level"], found["process"]) == ("info", "test")
    assert (found["level_"], found["process_"], found["time_"]) == ("error", "other", "never")


def test_the_request_is_named_on_each_line_of_it(stream: io.StringIO) -> None:
    """And on no other."""
    logger = log.get("ca.x")
    with log.request() as name:
        logger.info("inside")
    with log.request("given"):
        logger.info("inside")
    logger.info("outside")
    assert [line.get("request") for line in written(stream)] == [name, "given", None]
    assert len(name) == 16


def test_long_texts_are_cut(stream: io.StringIO) -> None:
    """A megabyte of purpose is no megabyte of log."""
    log.get("ca.x").info("e", purpose="a" * 1_000_000)
    assert len(stream.getvalue()) < 4000


def test_a_field_that_can_not_be_written_loses_the_line_and_nothing_else(stream: io.StringIO) -> None:
    """What can't be told is counted as lost; its contents are not printed by the way."""

    class Bad:
        def __str__(self) -> str:
            raise ValueError(VALUE)

    log.get("ca.x").info("e", bad=Bad())
    log.get("ca.x").info("next")
    assert VALUE not in stream.getvalue()
    assert '"next"' in stream.getvalue()


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    """Debug is for those who ask."""
    log.get("ca.x").debug("e")
    assert not stream.getvalue()
    log.setup("test", stream=stream, level="debug")
    log.get("ca.x").debug("e")
    assert len(written(stream)) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=some.recursive(
    some.none() | some.integers() | some.floats() | some.text() | some.binary(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=8,
))  # fmt: skip
def test_any_value_is_one_line(stream: io.StringIO, value: object) -> None:
    """Whatever is logged, it is one readable line."""
    stream.seek(0)
    stream.truncate()
    log.get("ca.x").info("e", value=value)
    assert json.loads(stream.getvalue())["event"] == "e"


def test_a_malformed_is_its_sentence() -> None:
    """`told` is what other wires use, too."""
    assert log.told(Malformed("not so"))["says"] == "not so"
