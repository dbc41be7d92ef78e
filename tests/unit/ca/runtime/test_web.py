"""The web base over real connections: identity first, the body checked, every failure a problem+json."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ca.errors import (
    Conflict,
    Denied,
    Exhausted,
    Malformed,
    NotFound,
    Problem,
    Stale,
    Unauthenticated,
    Unavailable,
)
from ca.runtime.database import Duplicate, StoreFull, StoreLocked
from ca.runtime.metrics import Metrics
from ca.runtime.web import application, listen
from fakes.web_service import WebService, served

JSON = {"Content-Type": "application/json"}
PROBLEMS = {
    Malformed: 400,
    Unauthenticated: 401,
    Denied: 403,
    NotFound: 404,
    Conflict: 409,
    Duplicate: 409,
    Stale: 409,
    Exhausted: 429,
    Unavailable: 503,
    StoreFull: 503,
    StoreLocked: 500,
    Problem: 500,
}


@pytest.fixture
def service() -> WebService:
    """Fresh for each test."""
    return WebService()


@pytest.fixture
async def session(service: WebService) -> AsyncIterator[aiohttp.ClientSession]:
    """A session of `ada`."""
    async with served(service) as session:
        yield session


async def problem(answer: aiohttp.ClientResponse, status: int, code: str) -> dict[str, Any]:
    """The problem+json it must be."""
    content: dict[str, Any] = json.loads(await answer.text())
    assert answer.status == status, content
    assert answer.content_type == "application/problem+json"
    assert content["code"] == code
    assert content["type"] == f"urn:sojourn:problem:{code}"
    assert content["status"] == status
    assert content["title"]
    assert content["request_id"] == answer.headers["X-Request-Id"]
    assert isinstance(content["retryable"], bool)
    assert answer.headers["Cache-Control"] == "no-store"
    return content


async def test_an_answer_is_what_the_model_says(session: aiohttp.ClientSession) -> None:
    """With the route's status, never cached, under an id of its own."""
    async with session.post("/v1/items", json={"name": "x", "count": 2}) as answer:
        assert answer.status == 201
        assert await answer.json() == {"name": "x", "count": 2, "kind": "a", "inner": {}}
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "sojourn"
        first = answer.headers["X-Request-Id"]
    async with session.get("/v1/items/7?a=b", headers={"X-Request-Id": "mine"}) as answer:
        assert await answer.json() == {"id": "7", "caller": "ada", "query": {"a": "b"}}
        assert answer.headers["X-Request-Id"] not in {first, "mine"}
    async with session.delete("/v1/items/7") as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    async with session.get("/v1/own") as answer:
        assert (answer.status, answer.headers["Location"]) == (202, "/v1/items/1")


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.__name__)
async def test_a_problem_is_told_by_its_class(
    service: WebService, session: aiohttp.ClientSession, kind: type[Problem]
) -> None:
    """Status, code, sentence and facts; facts never replace what stands in the standard."""
    service.raises = kind("the sentence", task="t1", status=200, detail="other")
    async with session.post("/v1/fail") as answer:
        content = await problem(answer, PROBLEMS[kind], kind.code)
        assert ("Retry-After" in answer.headers) == (answer.status in {429, 503})
    assert content["detail"] == "the sentence"
    assert content["task"] == "t1"
    assert content["retryable"] is kind.retryable


async def test_what_nobody_foresaw_says_nothing_but_its_id(service: WebService, session: aiohttp.ClientSession) -> None:
    """No word of the exception."""
    service.raises = ValueError("password=hunter2")
    async with session.post("/v1/fail") as answer:
        content = await problem(answer, 500, "internal")
    assert "hunter2" not in str(content)
    assert content["request_id"] in content["detail"]


async def test_an_unknown_address_or_method_is_a_problem_too(session: aiohttp.ClientSession) -> None:
    """The address isn't repeated; the methods are."""
    async with session.get("/v1/nothing/secret-token") as answer:
        assert "secret-token" not in str(await problem(answer, 404, "not-found"))
    async with session.patch("/v1/items") as answer:
        await problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == "GET, POST"


async def test_who_calls_is_asked_each_time_and_before_the_body_is_read(
    service: WebService, session: aiohttp.ClientSession
) -> None:
    """On one kept connection: valid, then expired (traps 35); a stranger's body isn't looked at."""
    async with session.get("/v1/items/1") as answer:
        assert answer.status == 200
    service.valid = False
    async with session.get("/v1/items/1") as answer:
        content = await problem(answer, 401, "unauthenticated")
        assert content["detail"] == "the certificate of `ada` has expired"
    service.valid = True
    async with session.post("/v1/items", data=b"{", headers={**JSON, "X-Test-Name": "eve"}) as answer:
        await problem(answer, 400, "malformed")
    assert service.asked == 3


async def test_without_identity_nothing_is_answered(service: WebService, session: aiohttp.ClientSession) -> None:
    """Not even whether the body was right."""
    async with (
        aiohttp.ClientSession(session._base_url) as stranger,
        stranger.post("/v1/items", data=b"{", headers=JSON) as answer,
    ):
        await problem(answer, 401, "unauthenticated")


async def test_every_error_of_a_body_is_listed_by_path_without_its_value(session: aiohttp.ClientSession) -> None:
    """What stood there may have been a secret in the wrong place."""
    body = {"name": "sj1.hunter2", "count": 0, "kind": "hunter2", "inner": {"a": "hunter2"}, "password": "hunter2"}
    async with session.post("/v1/items", json=body) as answer:
        content = await problem(answer, 400, "invalid")
    assert "hunter2" not in str(content)
    assert [error["path"] for error in content["errors"]] == ["name", "count", "kind", "inner.a", "password"]
    expected = {error["path"]: error["expected"] for error in content["errors"]}
    assert expected["count"] == "should be greater than or equal to 1"
    assert expected["password"] == "nothing: there is no such key"
    assert content["detail"].endswith("5 errors")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"name": NaN}',
        b'{"name": "\xff"}',
        b'\xef\xbb\xbf{"name": "x"}',
        b'{"name": "x", "name": "y"}',
        b'{"name": "x", "inner": {"a": 1, "a": 2}}',
        b'{"name": "x"} {}',
        '{"name": "x"}'.encode("utf-16"),
        b'{"name": "x", "count": ' + b"9" * 5000 + b"}",
        b"[" * 60_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    ],
    ids=range(15),
)
async def test_what_is_no_plain_json_object_is_refused(session: aiohttp.ClientSession, body: bytes) -> None:
    """Doubled keys, other encodings, numbers and nesting without end included."""
    async with session.post("/v1/items", data=body, headers=JSON) as answer:
        assert answer.status == 400, await answer.text()
        assert json.loads(await answer.text())["code"] in {"malformed", "invalid"}
    async with session.get("/v1/items/1") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}, {**JSON, "Content-Encoding": "gzip"}],
)
async def test_only_plain_json_is_read(session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    """A compressed body could be a bomb, a form a forgery."""
    async with session.post("/v1/items", data=b'{"name": "x"}', headers=headers) as answer:
        await problem(answer, 415, "unsupported-media-type")


async def test_a_body_is_refused_by_its_declared_length(session: aiohttp.ClientSession) -> None:
    """Before any of it is read."""
    async with session.post("/v1/big", data=b"x" * 1001, headers=JSON) as answer:
        content = await problem(answer, 413, "too-large")
    assert content["limit"] == 1000


async def test_a_body_is_refused_while_it_comes_in(session: aiohttp.ClientSession) -> None:
    """One that doesn't say how long it is and would never end."""
    assert session._base_url is not None
    reader, writer = await asyncio.open_connection(session._base_url.host, session._base_url.port)
    head = "POST /v1/big HTTP/1.1\r\nHost: x\r\nX-Test-Name: ada\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    writer.write((b"64\r\n" + b"x" * 100 + b"\r\n") * 11)
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()


async def test_a_call_without_a_body_takes_none(session: aiohttp.ClientSession) -> None:
    """An empty object is none, too."""
    async with session.post("/v1/big", data=b"{}", headers=JSON) as answer:
        assert await answer.json() == {"size": 2}
    async with session.post("/v1/big", data=b'{"a": 1}', headers=JSON) as answer:
        await problem(answer, 400, "malformed")


async def test_a_query_is_checked_as_a_body_is(session: aiohttp.ClientSession) -> None:
    """Unknown, doubled and impossible parameters."""
    async with session.get("/v1/items?limit=5&after=x") as answer:
        assert await answer.json() == {"limit": 5, "after": "x"}
    async with session.get("/v1/items?limit=0&offset=3") as answer:
        content = await problem(answer, 400, "invalid")
        assert [error["path"] for error in content["errors"]] == ["limit", "offset"]
    async with session.get("/v1/items?limit=1&limit=2") as answer:
        await problem(answer, 400, "malformed")


async def test_the_log_tells_neither_query_nor_body(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Who, what and how it ended is enough; of an address that doesn't exist not even that."""
    with caplog.at_level(logging.DEBUG):
        async with session.post("/v1/items?key=hunter2", json={"name": "hunter2"}):
            pass
        async with session.get("/hunter2"):
            pass
    fields = [record.__dict__.get("sojourn_fields", {}) for record in caplog.records]
    assert "hunter2" not in caplog.text + str(fields)
    answered = [field for field in fields if "seconds" in field]
    assert [(field["method"], field["path"], field["status"]) for field in answered] == [
        ("POST", "/v1/items", 201),
        ("GET", None, 404),
    ]
    assert answered[0]["caller"] == "ada"


async def test_requests_are_counted_by_class_of_status(service: WebService) -> None:
    """Never by path: anybody could make up more of them."""
    metrics = Metrics()
    async with served(service, metrics=metrics) as session:
        for path in ("/v1/items/1", "/v1/items/2", "/nothing"):
            async with session.get(path):
                pass
    assert metrics.value("sojourn_http_requests_total", code="2xx") == 2
    assert metrics.value("sojourn_http_requests_total", code="4xx") == 1


async def test_leaving_lets_running_requests_finish_and_takes_no_new_one(service: WebService) -> None:
    """Whoever was being answered gets its answer."""
    leaving = asyncio.Event()
    address: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with listen(application(service.routes), host="127.0.0.1", port=0) as where:
            address.set_result(where)
            await leaving.wait()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        serving = group.create_task(serve())
        host, port = await address
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:

            async def ask() -> dict[str, Any]:
                async with session.post("/v1/hold") as answer:
                    found: dict[str, Any] = await answer.json()
                    return found

            asked = group.create_task(ask())
            await service.held.wait()
            leaving.set()
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except ConnectionError:
                    break
                writer.close()
            assert not serving.done()
            service.hold.set()
            assert await asked == {"done": True}
