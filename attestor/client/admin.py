"""The operators' verbs: JSON over a process's own Unix socket.

Whoever may open the socket is an operator; the file's mode and the peer's uid say who that is (DESIGN 4.0).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import aiohttp

from attestor.client.errors import Unreachable
from ca.errors import Conflict, Denied, Exhausted, Malformed, NotFound, Problem, Stale, Unauthenticated, Unavailable

_KINDS: tuple[type[Problem], ...] = (
    Malformed,
    Unauthenticated,
    Denied,
    NotFound,
    Conflict,
    Stale,
    Exhausted,
    Unavailable,
)
_BY_STATUS: dict[int, type[Problem]] = {
    400: Malformed,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    413: Exhausted,
    429: Exhausted,
    503: Unavailable,
}
_LONGEST = 16 * 1024 * 1024
_PATIENCE = aiohttp.ClientTimeout(total=30)


class Failed(Problem):
    """The other process failed in a way it did not foresee; its log knows more."""

    code: ClassVar[str] = "failed"


class AdminClient:
    """Speaks to the admin socket at `socket`; an async context manager.

    Every call raises the Problem the other side answered with, or `Unreachable` when nothing listens.
    """

    def __init__(self, socket: Path | str) -> None:
        self._socket = str(socket)
        self._session = aiohttp.ClientSession(
            "http://admin", connector=aiohttp.UnixConnector(self._socket), timeout=_PATIENCE
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> Any:
        """Ask."""
        return await self._call("GET", path, params=query)

    async def post(self, path: str, body: Any = None) -> Any:
        """Ask for something to be done."""
        return await self._call("POST", path, json={} if body is None else body)

    async def delete(self, path: str) -> Any:
        """Ask for something to be removed."""
        return await self._call("DELETE", path)

    async def _call(self, method: str, path: str, **rest: Any) -> Any:
        try:
            async with self._session.request(method, path, **rest) as answer:
                return _read(answer.status, await _content(answer))
        except TimeoutError as error:
            raise Unreachable(f"the process behind `{self._socket}` doesn't answer") from error
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or "no connection"
            raise Unreachable(f"can't reach `{self._socket}`: {reason.lower()}; is the process running?") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"the connection to `{self._socket}` broke") from error


async def _content(answer: aiohttp.ClientResponse) -> Any:
    if answer.content_length is not None and answer.content_length > _LONGEST:
        raise Malformed(f"the answer is longer than {_LONGEST} bytes")
    if answer.status == 204:
        return None
    try:
        return await answer.json(content_type=None)
    except ValueError as error:
        raise Malformed("the answer is not JSON: is this an admin socket of Sojourn?") from error


def _read(status: int, content: Any) -> Any:
    if status < 400:
        return content
    document = content if isinstance(content, dict) else {}
    known = {kind.code: kind for kind in _KINDS}
    code = document.get("code")
    kind = known.get(code if isinstance(code, str) else "", _BY_STATUS.get(status, Failed))
    words = document.get("detail") or document.get("title")
    raise kind(str(words) if words else f"the process answered with status {status}")
