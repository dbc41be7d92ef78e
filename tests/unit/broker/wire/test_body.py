"""The spellings every body shares."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.wire.body import Asked, Page, Shown, Told, parse_length, parse_moment, write_length, write_moment
from ca.errors import Malformed
from ca.runtime.secret import Secret


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("500ms", 0.5), ("1m500ms", 60.5), ("0s", 0)],
)
def test_a_length_of_time(text: str, seconds: float) -> None:
    """Units from the largest to the smallest, each at most once."""
    assert parse_length(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "10 m", "-1s", "1.5h", "1s1m", "1h1h", "m", "1M", "٣s", "99999999999s"])
def test_what_is_no_length_of_time(text: str) -> None:
    """A bare number is refused: nobody knows its unit."""
    with pytest.raises(Malformed, match="`90s`"):
        parse_length(text)


@given(st.integers(0, 10**11))
def test_a_length_there_and_back(milliseconds: int) -> None:
    """Every whole millisecond up to three years survives."""
    length = timedelta(milliseconds=milliseconds)
    assert parse_length(write_length(length)) == length


def test_a_moment_has_an_offset() -> None:
    """RFC 3339; what has no offset means nothing, and no number is a moment."""
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_moment("2026-01-31T12:00:00Z") == noon
    assert parse_moment("2026-01-31T14:00:00.000+02:00") == noon
    assert write_moment(noon) == "2026-01-31T12:00:00Z"
    wrong = ["2026-01-31T12:00:00", "2026-01-31", "20260131T120000Z", "1769860800", "2026-02-30T12:00:00Z", "", "now"]
    for text in [*wrong, "0001-01-01T00:00:00+23:00"]:
        with pytest.raises(Malformed):
            parse_moment(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_there_and_back(moment: datetime) -> None:
    """Every microsecond survives."""
    assert parse_moment(write_moment(moment)) == moment


class _Holder(Told):
    secret: Shown


class _Closed(Asked):
    number: int = 0


class _Numbers(Page[_Closed]):
    """A page."""


def test_a_secret_shows_only_as_json() -> None:
    """Neither repr, str, the Python form nor an error holds it; JSON is its one way out, and back."""
    held = _Holder(secret=Secret("tr0ub4dor"))
    assert "tr0ub4dor" not in f"{held!r} {held} {held.model_dump()}"
    assert held.model_dump_json() == '{"secret":"tr0ub4dor"}'
    assert _Holder.model_validate_json(held.model_dump_json()).secret.reveal() == "tr0ub4dor"
    with pytest.raises(ValidationError) as raised:
        _Holder.model_validate_json('{"secret":{"tr0ub4dor":1}}')
    assert "tr0ub4dor" not in str(raised.value)
    with pytest.raises(TypeError):
        pickle.dumps(held.secret)


def test_what_is_asked_is_closed_and_strict() -> None:
    """An unknown key and a number in quotes are refused; an answer with a new key can still be read."""
    for text in ('{"nunber":1}', '{"number":"1"}', '{"number":1.0}', '{"number":true}', "[]"):
        with pytest.raises(ValidationError):
            _Closed.model_validate_json(text)
    assert _Holder.model_validate_json('{"secret":"s","new":1}').secret.matches("s")


def test_a_page_is_bounded() -> None:
    """At most a thousand items; the last page has no cursor."""
    assert _Numbers.model_validate_json('{"items":[{"number":1}]}').next is None
    with pytest.raises(ValidationError):
        _Numbers(items=[_Closed()] * 1001)
