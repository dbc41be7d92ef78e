"""The operators' client, on a real socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web as aiohttp_web

from attestor.client.admin import AdminClient
from attestor.client.errors import Unreachable
from ca.errors import Conflict, Denied, Exhausted, Malformed, NotFound, Problem, Stale, Unavailable
from ca.runtime import web
from ca.runtime.web import Call, Route

PROBLEMS: dict[str, Problem] = {
    "malformed": Malformed("bad"),
    "denied": Denied("no"),
    "not-found": NotFound("nothing"),
    "conflict": Conflict("there"),
    "stale": Stale("old"),
    "exhausted": Exhausted("full"),
    "unavailable": Unavailable("later"),
}


async def _echo(call: Call) -> dict[str, Any]:
    return {"query": dict(call.query)}


async def _fail(call: Call) -> None:
    raise PROBLEMS[call.path("kind")]


async def _text(_: Call) -> aiohttp_web.Response:
    return aiohttp_web.Response(text="<html>")


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    """A process that listens."""
    app = web.application(
        [
            Route("GET", "/v1/echo", _echo, summary="Echo"),
            Route("POST", "/v1/fail/{kind}", _fail, summary="Fail"),
            Route("GET", "/v1/text", _text, summary="Something else"),
        ]
    )
    async with web.listen_unix(app, tmp_path / "admin.sock", allow_uids={os.geteuid()}, drain=0.1) as path:
        yield path


async def test_an_answer_is_its_json(socket: Path) -> None:
    """With what was asked in the query."""
    async with AdminClient(socket) as admin:
        assert await admin.get("/v1/echo", a="1") == {"query": {"a": "1"}}


@pytest.mark.parametrize("kind", PROBLEMS)
async def test_a_refusal_is_the_same_problem_on_both_sides(socket: Path, kind: str) -> None:
    """Class and sentence come through."""
    async with AdminClient(socket) as admin:
        with pytest.raises(type(PROBLEMS[kind]), match=f"^{PROBLEMS[kind]}$"):
            await admin.post(f"/v1/fail/{kind}")


async def test_an_unknown_verb_is_not_found(socket: Path) -> None:
    """An older server says so in a sentence."""
    async with AdminClient(socket) as admin:
        with pytest.raises(NotFound):
            await admin.get("/v1/nothing")


async def test_nothing_that_listens_is_unreachable(tmp_path: Path) -> None:
    """With the path, and a question that helps."""
    async with AdminClient(tmp_path / "missing.sock") as admin:
        with pytest.raises(Unreachable, match=r"missing\.sock.*is the process running"):
            await admin.get("/v1/echo")


async def test_something_else_that_listens_is_told_apart(socket: Path) -> None:
    """What answers but not in JSON is not ours."""
    async with AdminClient(socket) as admin:
        with pytest.raises(Malformed, match="not JSON"):
            await admin.get("/v1/text")
