"""What commands print."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ca.errors import Denied, Problem, Unavailable
from ca.runtime.document import BadSettings
from ca.runtime.terminal import Cell, Console, Style, Styled, command_options, duration, when

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


def printed(act: Callable[[Console], None], *, out: io.StringIO | None = None, **options: Any) -> str:
    """What `act` wrote to stdout."""
    out = out or io.StringIO()
    act(Console(out=out, err=io.StringIO(), **{"environment": {}, **options}))
    return out.getvalue()


ROWS: list[tuple[Cell, ...]] = [("t1", 3, Styled("live", Style.GOOD), None), ("t22", 14, "gone", True)]
COLUMNS = ("task", "leases held", "state", "bound")


def test_a_table_is_aligned() -> None:
    """Light lines, numbers to the right, yes and no, a dash for nothing."""
    assert printed(lambda console: console.table(COLUMNS, ROWS)) == (
        "┌──────┬─────────────┬───────┬───────┐\n"
        "│ task │ leases held │ state │ bound │\n"
        "├──────┼─────────────┼───────┼───────┤\n"
        "│ t1   │           3 │ live  │ -     │\n"
        "│ t22  │          14 │ gone  │ yes   │\n"
        "└──────┴─────────────┴───────┴───────┘\n"
    )


def test_a_table_as_json_is_a_list_of_objects() -> None:
    """With the columns as keys and values that keep their type."""
    found = json.loads(printed(lambda console: console.table(COLUMNS, ROWS), json=True))
    assert found[0] == {"task": "t1", "leases_held": 3, "state": "live", "bound": None}
    assert json.loads(printed(lambda console: console.table(COLUMNS, []), json=True)) == []


def test_an_empty_table_says_so() -> None:
    """In words."""
    assert printed(lambda console: console.table(COLUMNS, [], empty="no task lives")) == "no task lives\n"


def test_wide_letters_take_their_room() -> None:
    """Alignment counts columns, not characters."""
    lines = printed(lambda console: console.table(("a",), [("漢字",), ("abcd",), ("e\u0301",)])).splitlines()
    assert lines[3:6] == ["│ 漢字 │", "│ abcd │", "│ e\u0301    │"]


@pytest.mark.parametrize(
    ("options", "coloured"),
    [
        ({}, True),
        ({"environment": {"NO_COLOR": "1"}}, False),
        ({"environment": {"TERM": "dumb"}}, False),
    ],
)
def test_colours_only_where_they_are_wanted(options: dict[str, Any], coloured: bool) -> None:  # noqa: FBT001 - a table's column
    """On a terminal, without NO_COLOR."""
    shown = printed(lambda console: console.say(Styled("x", Style.BAD)), out=Terminal(), **options)
    assert ("\x1b[31m" in shown) == coloured
    assert "\x1b" not in printed(lambda console: console.say(Styled("x", Style.BAD)))


def test_what_others_wrote_can_not_steer_the_terminal() -> None:
    """A purpose chosen by an agent is text: no escape, no line break, no change of direction."""
    evil = "\x1b[2J\x1b]0;owned\x07\r\n\u202egnirts\x9b"
    for act in (
        lambda console: console.table((evil,), [(evil,), (Styled(evil, Style.DIM),)]),
        lambda console: console.say(evil),
        lambda console: console.result({evil: [evil]}),
    ):
        shown = printed(act)
        assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b"} & set(shown)


def test_an_error_is_a_sentence_on_stderr() -> None:
    """As text, or as JSON with its code and details."""
    for as_json, expected in (
        (False, "error: no such task\n"),
        (True, '{"error": "no such task", "code": "denied", "task": "t1"}\n'),
    ):
        out, err = io.StringIO(), io.StringIO()
        Console(json=as_json, out=out, err=err).error(Denied("no such task", task="t1"))
        assert (out.getvalue(), err.getvalue()) == ("", expected)


def test_progress_is_silent_where_nobody_looks() -> None:
    """Not a terminal, or JSON."""
    for as_json, err in ((True, Terminal()), (False, io.StringIO())):
        with Console(out=io.StringIO(), json=as_json, err=err).progress("waiting"):
            pass
        assert err.getvalue() == ""


def test_progress_of_short_work_shows_nothing() -> None:
    """Less than a second needs no spinner."""
    err = Terminal()
    with Console(out=io.StringIO(), err=err).progress("waiting"):
        pass
    assert err.getvalue() == ""


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(milliseconds=4), "4 ms"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(minutes=4, seconds=10), "4 min 10 s"),
        (timedelta(hours=2), "2 h"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(hours=1, seconds=5), "1 h 5 s"),
    ],
)
def test_durations_for_humans(length: timedelta, words: str) -> None:
    """The two largest units that are not zero."""
    assert duration(length) == words


def test_moments_for_humans() -> None:
    """Before, after, and now."""
    assert when(NOW + timedelta(seconds=250), NOW) == "in 4 min 10 s"
    assert when(NOW - timedelta(hours=2), NOW) == "2 h ago"
    assert when(NOW + timedelta(milliseconds=300), NOW) == "now"


def invoke(body: Callable[[Console], Any], *arguments: str) -> Result:
    """Run a command whose body is `body`."""

    @click.command()
    @command_options
    def command(console: Console) -> Any:
        return body(console)

    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize(
    ("problem", "code"),
    [(Denied("no"), 1), (Unavailable("down"), 3), (BadSettings(["a.yaml:1: x: is required"]), 2), (Problem("x"), 1)],
)
def test_a_problem_is_an_exit_code(problem: Problem, code: int) -> None:
    """0 done, 1 denied or failed, 2 misused, 3 unreachable; never a traceback."""

    def body(_: Console) -> None:
        raise problem

    found = invoke(body)
    assert (found.exit_code, found.stdout) == (code, "")
    assert found.stderr == f"error: {problem}\n"


def test_usage_is_two_and_success_is_nought() -> None:
    """The library's own, and ours."""
    assert invoke(lambda console: console.say("done")).exit_code == 0
    assert invoke(lambda console: console.say("done"), "--unknown").exit_code == 2
    assert invoke(lambda _: 1).exit_code == 1


def test_an_async_command_is_run_to_its_end() -> None:
    """And Ctrl-C ends without a traceback."""

    async def body(console: Console) -> None:
        console.result({"a": 1})

    async def interrupted(_: Console) -> None:
        raise KeyboardInterrupt

    assert invoke(body, "--json").stdout == '{"a": 1}\n'
    assert invoke(interrupted).exit_code == 130
