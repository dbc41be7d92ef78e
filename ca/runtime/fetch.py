"""Outgoing HTTPS: a deadline, a limit on what is read, redirects counted, and a say in who may answer.

    async with Fetcher(Trust(ca_file=Path("/etc/ca.pem"))) as fetcher:
        answer = await fetcher.get("https://issuer.example/.well-known/openid-configuration")
        document = answer.json()

Only `https`, and no user name in an address. The other end is known by a CA bundle of its own or by the system's roots;
a bundle in a file is read again when it changed. Nothing is compressed, no cookie is kept, no proxy of the environment
is used. A redirect stays on `https`, and a header with a credential does not follow it to another origin. With
`public_only` a name or a redirect that leads to a private address is not connected to: what is looked at is the very
address the connection is made to. Whatever goes wrong with the other end is Unavailable; the text repeats nothing of
what it said.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ca.errors import Malformed, Unavailable
from ca.runtime.ciphers import CIPHERS

DEADLINE = 10.0
"""Seconds for a whole request, its redirects included."""
LIMIT = 1024 * 1024
"""Bytes of an answer."""
LONGEST_URL = 2048
LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of one line of a stream."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address behind a gateway (RFC 6052)
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """By what the other end is known.

    `ca_file` holds PEM certificates; without one the system's roots count. `server_name` is the name its certificate
    must have, when that is not the one dialled; `check_name=False` takes any certificate of those CAs, whatever it
    names. `certificate` and `key` are PEM files to show. `context` makes a context that knows by itself whom to let
    answer, for each connection; then nothing else here counts.
    """

    ca_file: Path | None = None
    server_name: str | None = None
    check_name: bool = True
    certificate: Path | None = None
    key: Path | None = None
    context: Callable[[], ssl.SSLContext] | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON. Raises Unavailable: an answer that can't be read is none."""
        return parse_json(self.body)


def parse_json(data: bytes) -> Any:
    """`data` as JSON without doubled keys. Raises Unavailable."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Unavailable("the answer is not JSON that can be read") from error


def parse_url(text: str) -> URL:
    """An absolute `https` address. Raises Malformed."""
    if not 0 < len(text) <= LONGEST_URL or not text.isascii() or not text.isprintable():
        raise Malformed(f"an address must be printable ASCII of at most {LONGEST_URL} characters")
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise Malformed("this is not an address: expected `https://host/path`") from error
    if url.scheme != "https" or not url.host or not port:
        raise Malformed("an address must begin with `https://` and name a host")
    if url.user is not None or url.password is not None or url.fragment:
        raise Malformed("an address must hold neither a user name nor a fragment")
    return url


class Fetcher:
    """One other end, or one kind of it; an async context manager that holds the connections."""

    def __init__(
        self,
        trust: Trust | None = None,
        *,
        deadline: float = DEADLINE,
        limit: int = LIMIT,
        redirects: int = 0,
        public_only: bool = False,
        connections: int = 16,
    ) -> None:
        self._trust = trust or Trust()
        self._deadline, self._limit, self._redirects = deadline, limit, redirects
        self._public_only, self._connections = public_only, connections
        self._context: tuple[object, ssl.SSLContext] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        resolver = _PublicResolver() if self._public_only else aiohttp.ThreadedResolver()
        connector = aiohttp.TCPConnector(limit=self._connections, resolver=resolver, use_dns_cache=False)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": "sojourn", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=LONGEST_LINE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Fetched:
        """Ask. Raises Malformed for an address of the wrong form, Unavailable."""
        return await self._whole("GET", url, headers, None)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> Fetched:
        """Send; a redirect is not followed. Raises as `get` does."""
        return await self._whole("POST", url, headers, body)

    async def send(self, method: str, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> Fetched:
        """The same by another method. Raises as `get` does."""
        return await self._whole(method, url, headers, body)

    @asynccontextmanager
    async def lines(
        self, url: str, headers: Mapping[str, str] | None = None, *, patience: float
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """Status and lines of an answer that goes on; none may take longer than `patience` seconds. As `get` raises."""
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._ask("GET", parse_url(url), headers, None)
        except TimeoutError as error:
            raise _too_slow(url, self._deadline) from error
        try:
            yield response.status, self._lines(response, patience)
        finally:
            response.close()

    async def _whole(self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes | None) -> Fetched:
        try:
            async with asyncio.timeout(self._deadline):
                return await self._followed(method, parse_url(url), headers, body)
        except TimeoutError as error:
            raise _too_slow(url, self._deadline) from error

    async def _followed(self, method: str, url: URL, headers: Mapping[str, str] | None, body: bytes | None) -> Fetched:
        """The answer behind at most so many redirects."""
        for _ in range(self._redirects + 1):
            response = await self._ask(method, url, headers, body)
            try:
                if response.status not in _REDIRECTS or method != "GET" or not self._redirects:
                    return Fetched(response.status, dict(response.headers), await self._body(response, url))
                target = _target(url, response.headers.get("Location", ""))
            finally:
                response.close()
            headers = headers if target.origin() == url.origin() else _without_credentials(headers)
            url = target
        raise Unavailable(f"`{url.host}` redirects more than {self._redirects} times")

    async def _ask(
        self, method: str, url: URL, headers: Mapping[str, str] | None, body: bytes | None
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("a Fetcher asks only inside its `async with`")
        if self._public_only:
            _check_literal(url)
        try:
            response = await self._session.request(
                method,
                url,
                headers=dict(headers or {}),
                data=body,
                ssl=self._tls(),
                server_hostname=self._trust.server_name,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unavailable(f"`{url.host}` shows a certificate that is not trusted here") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"`{url.host}` does not answer") from error
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise Unavailable(f"`{url.host}` answers compressed, and was not asked to")
        return response

    async def _body(self, response: aiohttp.ClientResponse, url: URL) -> bytes:
        content = bytearray()
        try:
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > self._limit:
                    raise Unavailable(f"`{url.host}` answers more than {self._limit} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"`{url.host}` broke off in the middle of its answer") from error
        return bytes(content)

    async def _lines(self, response: aiohttp.ClientResponse, patience: float) -> AsyncIterator[bytes]:
        host = response.url.host
        while True:
            try:
                async with asyncio.timeout(patience):
                    line = await response.content.readline()
            except TimeoutError as error:
                raise Unavailable(f"`{host}` has been silent for {patience:.0f} s") from error
            except ValueError as error:
                raise Unavailable(f"`{host}` sends a line of more than {LONGEST_LINE} bytes") from error
            except (aiohttp.ClientError, OSError) as error:
                raise Unavailable(f"`{host}` broke off in the middle of its answer") from error
            if not line:
                return
            yield line

    def _tls(self) -> ssl.SSLContext:
        """A context of the files as they are now. Raises Unavailable."""
        trust = self._trust
        if trust.context is not None:
            return trust.context()
        mark = tuple(_mark(path) for path in (trust.ca_file, trust.certificate, trust.key))
        if self._context is None or self._context[0] != mark:
            self._context = (mark, _tls_context(trust))
        return self._context[1]


class _PublicResolver(AbstractResolver):
    """Names as the system resolves them, without addresses that are not of the public network."""

    def __init__(self) -> None:
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Only those anybody may connect to. Raises OSError when none is left."""
        found = [one for one in await self._inner.resolve(host, port, family) if _is_public(one["host"])]
        if not found:
            raise OSError(f"`{host}` has no public address")
        return found

    async def close(self) -> None:
        """Nothing is held."""
        await self._inner.close()


def _tls_context(trust: Trust) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(trust.ca_file) if trust.ca_file else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.check_hostname = trust.check_name
        if trust.certificate is not None:
            context.load_cert_chain(trust.certificate, trust.key)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable("the certificates for an outgoing connection can't be read") from error
    return context


def _mark(path: Path | None) -> object:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return "absent"
    return found and (found.st_ino, found.st_size, found.st_mtime_ns)


def _target(url: URL, location: str) -> URL:
    try:
        return parse_url(str(url.join(URL(location))))
    except (Malformed, ValueError) as error:
        raise Unavailable(f"`{url.host}` redirects to something that is no `https` address") from error


def _check_literal(url: URL) -> None:
    """An address written as a number is not resolved, so it is looked at here. Raises Unavailable."""
    try:
        ipaddress.ip_address(url.host or "")
    except ValueError:
        return
    if not _is_public(url.host or ""):
        raise Unavailable(f"`{url.host}` is not an address of the public network")


def _is_public(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address in _TRANSLATED:
            return _is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _is_public(str(inner))
    return address.is_global and not address.is_multicast


def _without_credentials(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (headers or {}).items() if name.lower() not in _CREDENTIALS}


def _too_slow(url: str, deadline: float) -> Unavailable:
    return Unavailable(f"`{URL(url).host}` did not answer within {deadline:g} s")


def _no_number(name: str) -> Never:
    raise ValueError(f"`{name}` is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands there twice")
    return members
