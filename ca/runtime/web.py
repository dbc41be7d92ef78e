"""HTTP for a process: one table of routes, identity first, the body checked, every failure a problem+json.

    ROUTES = (
        Route("POST", "/v1/tasks", open_task, summary="Open a task", body=OpenTask, answer=TaskView, status=201),
        Route("GET", "/v1/tasks/{id}", show_task, summary="One task", answer=TaskView),
    )

    async def open_task(call: Call) -> TaskView: ...

    app = application(ROUTES, identify=identify, recheck=recheck)
    async with listen(app, host="127.0.0.1", port=8443, ssl=context) as (host, port): ...

Who calls is asked on every request, and `recheck` says whether that still holds: a connection outlives neither its leaf
nor its instance (traps 35). Streams ask again at each write. Nothing may be cached, and the log tells neither query nor
body. One application has one listener; leaving it stops accepting, lets running requests finish, and tells streams.
"""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web
from pydantic import BaseModel

from ca.errors import Denied, NotFound, Problem, Unauthenticated
from ca.runtime import body as bodies
from ca.runtime import log
from ca.runtime.crowd import OPERATORS, Crowd, listening_at, listening_on
from ca.runtime.metrics import Metrics, code_class
from ca.runtime.problem import CONTENT_TYPE, NoSuchMethod, document, headers_of, status_of
from ca.runtime.unix_socket import credentials, listening

LIMIT = 64 * 1024
"""Bytes a body may have unless its route says otherwise."""

DRAIN = 10.0
"""Seconds running requests get to finish when the listener ends."""

IDLE = 75.0
"""Seconds a connection may idle, or take for a request's head."""

HANDSHAKE = 10.0
LINGER = 2.0
"""Seconds for which the rest of a refused body is thrown away, so that the answer to it can be read."""

Caller: TypeAlias = Any
"""Who calls, as the process that listens knows it; nothing here looks into it."""

Identify: TypeAlias = Callable[[web.Request], Awaitable[Caller]]
Recheck: TypeAlias = Callable[[Caller], Awaitable[None]]
Answer: TypeAlias = BaseModel | Mapping[str, Any] | web.StreamResponse | None

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer with a status or headers of its own."""

    body: BaseModel | Mapping[str, Any] | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Next: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Handler: TypeAlias = Callable[["Call"], Awaitable[Answer | Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row: what is asked for, who answers, and what travels."""

    method: str
    path: str
    handler: Handler
    _: KW_ONLY
    summary: str
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    limit: int = LIMIT
    stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request: who asks, and what for. `body` is an instance of the route's model, `raw` its bytes."""

    request: web.Request
    caller: Caller
    body: Any
    raw: bytes
    query: Mapping[str, str]
    parameters: Any

    def path(self, name: str) -> str:
        """The part of the path the route calls `name`."""
        return self.request.match_info[name]

    @property
    def id(self) -> str:
        """The request's id, as in the log and in `X-Request-Id`."""
        return self.request[REQUEST_ID]

    async def recheck(self) -> None:
        """Whether the caller is still who it was; raises the Problem that says no."""
        recheck = self.request.app[SERVICE].recheck
        if recheck is not None:
            await recheck(self.caller)


@dataclass(slots=True, kw_only=True)
class Service:
    """What every request of an application shares."""

    identify: Identify | None
    recheck: Recheck | None
    metrics: Metrics | None
    stopping: asyncio.Event
    allow_uids: frozenset[int] | None = None


SERVICE = web.AppKey("service", Service)
REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", object)
STARTED = web.RequestKey("started", web.StreamResponse)
"""The response a stream has begun: a failure can't become a problem+json any more."""


def application(
    routes: Sequence[Route],
    *,
    identify: Identify | None = None,
    recheck: Recheck | None = None,
    metrics: Metrics | None = None,
) -> web.Application:
    """An application that answers `routes`. Without `identify` the caller is None: for sockets that judge by uid."""
    app = web.Application(middlewares=[_edge])
    app[SERVICE] = Service(identify=identify, recheck=recheck, metrics=metrics, stopping=asyncio.Event())
    for route in routes:
        app.router.add_route(route.method, route.path, partial(_serve, route))
    app.on_response_prepare.append(_mark)
    app.on_shutdown.append(_stop)
    return app


@asynccontextmanager
async def listen(
    app: web.Application,
    *,
    host: str,
    port: int,
    ssl: tls.SSLContext | None = None,
    drain: float = DRAIN,
    crowd: Crowd | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serve `app` at `host`:`port` (0: a free one); yields where it listens."""
    async with (
        _serving(app, drain) as factory,
        listening_at(host, port, crowd or Crowd(), factory, ssl=ssl, handshake=HANDSHAKE) as bound,
    ):
        yield bound


@asynccontextmanager
async def listen_unix(
    app: web.Application,
    path: Path,
    *,
    mode: int = 0o600,
    allow_uids: Collection[int],
    drain: float = DRAIN,
) -> AsyncIterator[Path]:
    """Serve `app` on a socket at `path`, for processes of `allow_uids` alone.

    Raises:
        AlreadyRunning: another process listens there.
    """
    app[SERVICE].allow_uids = frozenset(allow_uids)
    crowd = Crowd(OPERATORS, caller_of=lambda accepted, _: credentials(accepted).uid in allow_uids)
    with listening(path, mode=mode) as listener:
        async with _serving(app, drain) as factory, listening_on(listener, crowd, factory, handshake=HANDSHAKE):
            yield path


def peer_uid(request: web.Request) -> int:
    """The uid of the process at the other end of a Unix socket, when it connected. Raises Unauthenticated."""
    connected = request.transport.get_extra_info("socket") if request.transport else None
    if connected is None or connected.family != socket.AF_UNIX:
        raise Unauthenticated("only a Unix socket says whose process is at the other end")
    return credentials(connected).uid


@asynccontextmanager
async def _serving(app: web.Application, drain: float) -> AsyncIterator[Callable[[], asyncio.Protocol]]:
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=IDLE, lingering_time=LINGER, shutdown_timeout=drain)
    await runner.setup()
    try:
        assert runner.server is not None
        yield runner.server
    finally:
        await runner.cleanup()


@web.middleware
async def _edge(request: web.Request, handler: Next) -> web.StreamResponse:
    """Everything around a request: its id, its log line, its count, and what a failure becomes."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with log.request() as request_id:
        request[REQUEST_ID] = request_id
        response = await _answer(request, handler)
        seconds = loop.time() - begun
        resource = request.match_info.route.resource
        _log.info(
            "answered",
            method=request.method,
            route=resource.canonical if resource else None,
            path=request.path if resource else None,
            caller=str(request[CALLER]) if request.get(CALLER) is not None else None,
            status=response.status,
            seconds=round(seconds, 6),
        )
    metrics = request.app[SERVICE].metrics
    if metrics is not None:
        metrics.count("sojourn_http_requests_total", code=code_class(response.status))
        if STARTED not in request:
            metrics.observe("sojourn_http_seconds", seconds)
    return response


async def _answer(request: web.Request, handler: Next) -> web.StreamResponse:
    try:
        _check_uid(request)
        return await handler(request)
    except Problem as problem:
        failure: Problem | None = problem
        _log.info("refused", error=problem)
    except web.HTTPException as error:
        failure = _of_aiohttp(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller learns nothing but the id
        failure = None
        _log.error("failed unexpectedly", error=error)
    if STARTED in request:
        if request.transport is not None:
            request.transport.abort()
        return request[STARTED]
    return _problem(failure, request[REQUEST_ID])


def _problem(problem: Problem | None, request_id: str) -> web.Response:
    found = document(problem, request_id)
    status = status_of(problem) if problem is not None else status_of(Problem(""))
    headers = headers_of(status, problem)
    allow = problem.details.get("allow") if isinstance(problem, NoSuchMethod) else None
    if isinstance(allow, str):
        headers["Allow"] = allow
    return web.json_response(found, status=status, headers=headers, content_type=CONTENT_TYPE)


def _of_aiohttp(error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return NoSuchMethod(f"expected one of the methods {allowed}", allow=allowed)
    return NotFound("there is nothing at this address")


async def _serve(route: Route, request: web.Request) -> web.StreamResponse:
    call = await _call(route, request)
    answer = await route.handler(call)
    if isinstance(answer, web.StreamResponse):
        return answer
    if not isinstance(answer, Reply):
        answer = Reply(body=answer, status=route.status if answer is not None else 204)
    if answer.body is None:
        return web.Response(status=answer.status, headers=answer.headers)
    if isinstance(answer.body, BaseModel):
        text = answer.body.model_dump_json()
        return web.Response(text=text, content_type="application/json", status=answer.status, headers=answer.headers)
    return web.json_response(dict(answer.body), status=answer.status, headers=answer.headers)


async def _call(route: Route, request: web.Request) -> Call:
    """Who, then what: a body is not read for somebody unknown."""
    service = request.app[SERVICE]
    caller = await service.identify(request) if service.identify is not None else None
    request[CALLER] = caller
    if service.recheck is not None:
        await service.recheck(caller)
    query = bodies.single_values(request)
    parameters = bodies.parse_query(query, route.query) if route.query is not None else None
    raw = await bodies.read(request, route.limit)
    body = bodies.parse(raw, route.body)
    return Call(request=request, caller=caller, body=body, raw=raw, query=query, parameters=parameters)


def _check_uid(request: web.Request) -> None:
    allowed = request.app[SERVICE].allow_uids
    if allowed is not None and (uid := peer_uid(request)) not in allowed:
        raise Denied(f"this socket is not for processes of uid `{uid}`")


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "sojourn"
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]


async def _stop(app: web.Application) -> None:
    app[SERVICE].stopping.set()
