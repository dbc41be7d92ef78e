"""A small HTTP service with one of everything, for the tests of the web base."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import aiohttp
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ca.errors import Unauthenticated
from ca.runtime.metrics import Metrics
from ca.runtime.web import Call, Reply, Route, application, listen


class Item(BaseModel):
    """What travels."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=20)]
    count: Annotated[int, Field(ge=1)] = 1
    kind: Literal["a", "b"] = "a"
    inner: dict[str, int] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if value.startswith("sj"):
            raise ValueError(f"`{value}` is reserved")
        return value


class Page(BaseModel):
    """A query."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 10
    after: str | None = None


class WebService:
    """Handlers, and switches for what should go wrong."""

    def __init__(self) -> None:
        self.raises: BaseException | None = None
        self.valid = True
        self.asked = 0
        self.held, self.hold = asyncio.Event(), asyncio.Event()
        self.routes = (
            Route("POST", "/v1/items", self.make, summary="Make", body=Item, answer=Item, status=201),
            Route("GET", "/v1/items", self.page, summary="List", query=Page, answer=Page),
            Route("GET", "/v1/items/{id}", self.show, summary="Show", answer=Item),
            Route("DELETE", "/v1/items/{id}", self.remove, summary="Remove"),
            Route("POST", "/v1/big", self.show_size, summary="Big", limit=1000, body=None),
            Route("POST", "/v1/fail", self.fail, summary="Fail"),
            Route("POST", "/v1/hold", self.wait, summary="Hold"),
            Route("GET", "/v1/own", self.own, summary="Own"),
        )

    async def identify(self, request: web.Request) -> str:
        """The name in a header stands for a certificate."""
        self.asked += 1
        name = request.headers.get("X-Test-Name")
        if name is None:
            raise Unauthenticated("no certificate was shown")
        return name

    async def recheck(self, caller: Any) -> None:
        """Whether that certificate still holds."""
        if not self.valid:
            raise Unauthenticated(f"the certificate of `{caller}` has expired")

    async def make(self, call: Call) -> Item:
        """Echo."""
        assert isinstance(call.body, Item)
        return call.body

    async def page(self, call: Call) -> Page:
        """Echo the query."""
        assert isinstance(call.parameters, Page)
        return call.parameters

    async def show(self, call: Call) -> dict[str, Any]:
        """Who asked for what."""
        return {"id": call.path("id"), "caller": call.caller, "query": dict(call.query)}

    async def remove(self, call: Call) -> None:
        """Nothing to say."""

    async def show_size(self, call: Call) -> dict[str, Any]:
        """How much came."""
        return {"size": len(call.raw)}

    async def fail(self, call: Call) -> None:
        """Raise what the test put there."""
        assert self.raises is not None
        raise self.raises

    async def wait(self, call: Call) -> dict[str, Any]:
        """Answer when the test says so."""
        self.held.set()
        await self.hold.wait()
        return {"done": True}

    async def own(self, call: Call) -> Reply:
        """A status and a header of its own."""
        return Reply(body={"a": 1}, status=202, headers={"Location": "/v1/items/1"})


@asynccontextmanager
async def served(
    service: WebService, *routes: Route, metrics: Metrics | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session to `service` on a free port, as the caller `ada`."""
    app = application([*service.routes, *routes], identify=service.identify, recheck=service.recheck, metrics=metrics)
    async with (
        asyncio.timeout(60),
        listen(app, host="127.0.0.1", port=0, drain=1.0) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}", headers={"X-Test-Name": "ada"}) as session,
    ):
        yield session
