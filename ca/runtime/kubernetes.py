"""A client of the Kubernetes API: get, list, post, put, delete and watch, over `fetch`.

    async with Kubernetes(KubernetesSettings()) as cluster:            # inside a pod: its own service account
        pod = await cluster.get("/api/v1/namespaces/shop/pods/cart-0")
        async for step in cluster.watch("/api/v1/pods"):               # Listed first, then Changed, Listed again …
            ...

The token and the CA are files the kubelet replaces: both are read anew for every request. A watch goes on where it was
after the server closed it, and begins with a list again when what it knew is too old (410). Every answer is bounded and
has a deadline. What the API refuses becomes the Problem that says what a caller can do; its own words are not repeated.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import quote, urlencode

from ca.errors import Conflict, Denied, Malformed, NotFound, Problem, Stale, Unauthenticated, Unavailable
from ca.runtime.fetch import Fetched, Fetcher, Trust, parse_json, parse_url
from ca.runtime.settings import Duration, Settings

IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LIMIT = 32 * 1024 * 1024
"""Bytes of one answer: a page of pods is long."""
PAGE = 250
WATCH_FOR = 300
"""Seconds after which the server is asked to end a watch, so that a dead one is noticed."""

Object: TypeAlias = Mapping[str, Any]

_SEGMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_KINDS: Mapping[str, Literal["added", "modified", "deleted"]] = {
    "ADDED": "added",
    "MODIFIED": "modified",
    "DELETED": "deleted",
}
_STATUS: Mapping[int, type[Problem]] = {
    400: Malformed,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: Stale,
    422: Malformed,
}


class KubernetesSettings(Settings):
    """Where the API is and who asks; whatever is left out is what a pod finds in itself."""

    server: str | None = None
    """`https://host:port`."""
    token_file: Path | None = None
    ca_file: Path | None = None
    deadline: Duration = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything there is; whatever was known before and is not in it is gone."""

    items: tuple[Object, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Changed:
    """One object is there, is another, or is gone."""

    kind: Literal["added", "modified", "deleted"]
    object: Object = field(repr=False)


class Kubernetes:
    """One cluster's API; an async context manager."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._server = _server(settings)
        self._token = settings.token_file or IN_POD / "token"
        trust = Trust(ca_file=settings.ca_file or IN_POD / "ca.crt")
        self._fetcher = Fetcher(trust, deadline=settings.deadline.total_seconds(), limit=LIMIT)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._fetcher)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        """One object. Raises NotFound, Unauthenticated, Denied, Stale, Unavailable."""
        return _object(await self._fetcher.get(self._url(path, query), await self._headers()))

    async def post(self, path: str, body: Object) -> Object:
        """Create. Raises Malformed, Conflict and as `get` does."""
        return _object(await self._fetcher.post(self._url(path), json.dumps(body).encode(), await self._headers()))

    async def put(self, path: str, body: Object) -> Object:
        """Replace; with a `resourceVersion` only that one. Raises Conflict and as `post` does."""
        return await self._send("PUT", path, body)

    async def delete(self, path: str, uid: str) -> None:
        """Remove the object, if it is the one with this `uid`. Raises Conflict: it is another; and as `get` does."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        await self._send("DELETE", path, options)

    async def list(self, path: str, query: Mapping[str, str] | None = None) -> tuple[Object, ...]:
        """Every object of a kind, page by page. Raises as `get` does."""
        return (await self._list(path, query))[0]

    async def watch(self, path: str, query: Mapping[str, str] | None = None) -> AsyncIterator[Listed | Changed]:
        """All objects of a kind, then every change, for ever.

        Raises:
            Unavailable: the link broke; begin anew after a pause. Denied, Unauthenticated: not allowed to.
        """
        version, silent = "", 0
        while True:
            if not version:
                items, version = await self._list(path, query)
                yield Listed(items)
            silent += 1
            try:
                async for change, newer in self._changes(path, query, version):
                    version, silent = newer, 0
                    if change is not None:
                        yield change
            except Stale:
                version = ""
            if silent > 1:  # a server that always does this would be asked without end
                raise Unavailable("the Kubernetes API ended a watch in which it said nothing")

    async def _list(self, path: str, query: Mapping[str, str] | None) -> tuple[tuple[Object, ...], str]:
        items: list[Object] = []
        more = ""
        while True:
            page = await self.get(path, {**(query or {}), "limit": str(PAGE), **({"continue": more} if more else {})})
            found, meta = page.get("items"), page.get("metadata")
            if not isinstance(found, list) or not isinstance(meta, dict):
                raise Unavailable("the Kubernetes API answers a list that has no items")
            items += [one for one in found if isinstance(one, dict)]
            more = str(meta.get("continue") or "")
            if not more:
                return tuple(items), _version(meta)

    async def _changes(
        self, path: str, query: Mapping[str, str] | None, version: str
    ) -> AsyncIterator[tuple[Changed | None, str]]:
        """What happened after `version`; ends when the server ends it. Raises Stale when that is too old."""
        asked = {
            **(query or {}),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_FOR),
        }
        url, headers = self._url(path, asked), await self._headers()
        async with self._fetcher.lines(url, headers, patience=WATCH_FOR * 1.1) as (status, lines):
            _check(status)
            async for line in lines:
                kind, found = _event(line)
                if kind == "ERROR":
                    _check(int(found.get("code") or 500))
                    raise Unavailable("the Kubernetes API ended a watch with an error")
                meta = found.get("metadata")
                newer = _version(meta if isinstance(meta, dict) else {})
                yield (Changed(_KINDS[kind], found) if kind in _KINDS else None), newer

    async def _send(self, method: str, path: str, body: Object) -> Object:
        return _object(
            await self._fetcher.send(method, self._url(path), json.dumps(body).encode(), await self._headers())
        )

    async def _headers(self) -> dict[str, str]:
        try:
            token = (await asyncio.to_thread(self._token.read_text)).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the Kubernetes token in `{self._token}` can't be read") from error
        if not token.isascii() or not token.isprintable() or not token:
            raise Unavailable(f"the Kubernetes token in `{self._token}` is no token")
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        return headers | {"Content-Type": "application/json"}

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        return f"{self._server}{path}" + (f"?{urlencode(query)}" if query else "")


def segment(text: object) -> str:
    """A name as a part of a path. Raises Malformed: one that came from outside must not lead elsewhere."""
    if not isinstance(text, str) or not _SEGMENT.fullmatch(text):
        raise Malformed("this is not the name of a Kubernetes object")
    return quote(text, safe="")


def _server(settings: KubernetesSettings) -> str:
    if settings.server is not None:
        url = parse_url(settings.server)
        if url.raw_path_qs != "/":
            raise Malformed("a Kubernetes server must be `https://host:port` without a path")
        return str(url).rstrip("/")
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port.isdecimal():
        raise Malformed("this process does not run in a pod: say `server`, `token_file` and `ca_file` of the cluster")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _object(answer: Fetched) -> Object:
    if answer.status == 404 and not _says_not_found(answer):
        raise Unavailable("what answers with status 404 is not the Kubernetes API")
    _check(answer.status)
    found = answer.json()
    if not isinstance(found, dict):
        raise Unavailable("the Kubernetes API answers something that is no object")
    return found


def _says_not_found(answer: Fetched) -> bool:
    """Whether the API itself says so: what a proxy in between does not find proves nothing about an object."""
    try:
        found = answer.json()
    except Unavailable:
        return False
    return isinstance(found, dict) and found.get("kind") == "Status" and found.get("reason") == "NotFound"


def _check(status: int) -> None:
    if 200 <= status < 300:
        return
    kind = _STATUS.get(status, Unavailable)
    raise kind(f"the Kubernetes API answers with status {status}")


def _event(line: bytes) -> tuple[str, dict[str, Any]]:
    event = parse_json(line)
    found = event.get("object") if isinstance(event, dict) else None
    if not isinstance(found, dict) or not isinstance(event.get("type"), str):
        raise Unavailable("the Kubernetes API sends an event that can't be read")
    return event["type"], found


def _version(meta: Mapping[str, Any]) -> str:
    version = meta.get("resourceVersion")
    if not isinstance(version, str) or not version:
        raise Unavailable("the Kubernetes API does not say the version of what it answers")
    return version
