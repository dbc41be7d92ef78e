"""The management API, and what its failures mean.

Before anything was sent it is `TargetDown`; after something that changes was sent and no answer came, or an answer that
says the server itself failed, `OutcomeUnknown`; every other status the caller did not expect is a refusal. Every status
is looked at. Nothing of the server's own words is kept: a body we sent could stand in them.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from broker.engines.rabbitmq.settings import Settings
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Problem, Unavailable
from ca.runtime.fetch import parse_json
from ca.runtime.secret import Secret

T = TypeVar("T")

WITHIN = 8.0
"""Seconds for one request, connecting included."""

_LARGEST = 32 * 1024 * 1024
"""Bytes of an answer: a list of a few hundred thousand names."""

_READS = frozenset({"GET"})


@dataclass(frozen=True, slots=True)
class Row:
    """One thing the server told of."""

    members: Mapping[str, Any] = field(repr=False)

    def text(self, key: str) -> str:
        """A member. Raises TargetDown: it is not there, or no text."""
        return self._of(key, str)

    def yes(self, key: str) -> bool:
        """The same of a truth."""
        return self._of(key, bool)

    def texts(self, key: str) -> Sequence[str]:
        """The same of a list of texts; an empty one where it is left out."""
        value = self._of(key, list) if key in self.members else []
        if not all(isinstance(item, str) for item in value):
            raise TargetDown(f"the management API answers `{key}` in a form we don't know")
        return value

    def _of(self, key: str, kind: type[T]) -> T:
        value = self.members.get(key)
        if not isinstance(value, kind):
            raise TargetDown(f"the management API answers `{key}` in a form we don't know")
        return value


def _row(value: Any) -> Row:
    if not isinstance(value, dict):
        raise TargetDown("the management API answers in a form we don't know")
    return Row(value)


@dataclass(frozen=True, slots=True)
class Answer:
    """One whose status was expected."""

    status: int
    body: bytes = field(repr=False)

    def rows(self) -> Sequence[Row]:
        """A list of things. Raises TargetDown: an answer that can't be read is none."""
        value = self._json()
        if not isinstance(value, list):
            raise TargetDown("the management API answers no list where one was expected")
        return [_row(item) for item in value]

    def row(self) -> Row:
        """One thing. Raises TargetDown."""
        return _row(self._json())

    def _json(self) -> Any:
        try:
            return parse_json(self.body)
        except Problem as error:
            raise TargetDown(f"the management API answers what can't be read: {error}") from None


class Reach:
    """Requests as ourselves to one management API; made by `open_reach`."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._settings, self._session = settings, session
        self._password: Secret | None = None

    def log_in_with(self, password: Secret | None) -> None:
        """Ask with this one from now on instead of the settings' own; None: with the settings' own."""
        self._password = password

    async def get(self, *path: str, expected: frozenset[int] = frozenset({200}), query: str = "") -> Answer:
        """Look. Raises TargetDown, Unavailable."""
        return await self._ask("GET", path, None, expected, query)

    async def put(self, *path: str, body: Mapping[str, Any], expected: frozenset[int] | None = None) -> Answer:
        """Make it so. Raises TargetDown, OutcomeUnknown, Unavailable."""
        return await self._ask("PUT", path, body, expected or frozenset({201, 204}), "")

    async def delete(self, *path: str) -> bool:
        """Remove; whether it was there. Raises TargetDown, OutcomeUnknown, Unavailable."""
        answer = await self._ask("DELETE", path, None, frozenset({204, 404}), "")
        return answer.status == 204

    async def _ask(
        self, method: str, path: tuple[str, ...], body: Mapping[str, Any] | None, expected: frozenset[int], query: str
    ) -> Answer:
        reads = method in _READS
        try:
            answer = await self._send(method, self._url(path, query), body)
        except TargetDown as error:  # it answered, and with what can't be read
            raise (TargetDown if reads else OutcomeUnknown)(str(error)) from None
        except aiohttp.ClientConnectorError as error:
            raise TargetDown(f"the management API can't be reached ({type(error).__name__})") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            unheard = TargetDown if reads else OutcomeUnknown
            raise unheard(f"the management API broke off before it answered ({type(error).__name__})") from None
        if answer.status in expected:
            return answer
        if answer.status == 401:
            raise TargetDown("the management API refused our own login")
        if answer.status >= 500:
            raise (TargetDown if reads else OutcomeUnknown)(f"the management API failed with {answer.status}")
        raise Unavailable(f"the management API refused with {answer.status}", status=answer.status)

    async def _send(self, method: str, url: URL, body: Mapping[str, Any] | None) -> Answer:
        password = self._password or self._settings.password.read()
        login = f"{self._settings.user}:{password.reveal()}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}"}
        async with self._session.request(method, url, json=body, headers=headers, allow_redirects=False) as response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > _LARGEST:
                    raise TargetDown(f"the management API answers more than {_LARGEST} bytes")
            return Answer(response.status, bytes(content))

    def _url(self, path: tuple[str, ...], query: str) -> URL:
        ending = "/".join(quote(part, safe="") for part in ("api", *path))
        return URL(f"{self._settings.management}{ending}{query and '?'}{query}", encoded=True)


@asynccontextmanager
async def open_reach(settings: Settings) -> AsyncIterator[Reach]:
    """Nothing is connected yet; no cookie is kept and no proxy of the environment is used."""
    connector = aiohttp.TCPConnector(limit=settings.connections, use_dns_cache=False, ssl=settings.our_tls() or True)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=WITHIN),
        headers={"User-Agent": "sojourn"},
    ) as session:
        session._retry_connection = False  # noqa: SLF001 - a PUT that was sent twice may be heard a second time late
        yield Reach(settings, session)
