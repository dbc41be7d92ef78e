"""Outgoing HTTPS against real servers over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from ca.errors import Malformed, Unavailable
from ca.runtime.fetch import Fetcher, Trust, parse_json, parse_url
from fakes.web_pki import WebAuthority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(context: ssl.SSLContext, handler: Handler) -> AsyncIterator[str]:
    """A server whose every path is `handler`'s."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fetching(folder: Path, handler: Handler, **options: object) -> AsyncIterator[tuple[Fetcher, str]]:
    """A server and a fetcher that trusts it."""
    authority = WebAuthority()
    (folder / "ca.pem").write_bytes(authority.pem)
    async with (
        asyncio.timeout(60),
        serving(authority.server(), handler) as url,
        Fetcher(Trust(ca_file=folder / "ca.pem"), **options) as fetcher,  # type: ignore[arg-type]
    ):
        yield fetcher, url


async def hello(request: web.Request) -> web.Response:
    """What was asked, and with which credential."""
    return web.json_response({"path": request.path_qs, "auth": request.headers.get("Authorization")})


async def test_an_answer_is_whole(tmp_path: Path) -> None:
    """Status, headers and body; a failure's too."""

    async def teapot(_: web.Request) -> web.Response:
        return web.Response(status=418, text="short")

    async with fetching(tmp_path, hello) as (fetcher, url):
        answer = await fetcher.get(f"{url}/a?b=c", {"Authorization": "Bearer x"})
        assert (answer.status, answer.json()) == (200, {"path": "/a?b=c", "auth": "Bearer x"})
    async with fetching(tmp_path, teapot) as (fetcher, url):
        posted = await fetcher.post(url, b"{}")
        assert (posted.status, posted.body) == (418, b"short")
        with pytest.raises(Unavailable, match="not JSON"):
            posted.json()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "example.org",
        "",
        "https://",
        "https://user:pw@example.org/",
        "https://example.org/#x",
        "https://example.org:99999/",
        "https://exämple.org/",
        "https://example.org/\n",
        "https://example.org/" + "a" * 3000,
    ],
)
def test_an_address_of_another_form_is_refused(url: str) -> None:
    """Before anything is connected to."""
    with pytest.raises(Malformed):
        parse_url(url)


@pytest.mark.parametrize("text", [b"{", b"[NaN]", b'{"a": Infinity}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000])
def test_json_that_means_two_things_is_none(text: bytes) -> None:
    """Or nothing at all."""
    with pytest.raises(Unavailable):
        parse_json(text)


async def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    """Nor one of the system's roots, when a bundle is named; and the bundle is read again when it changed."""
    ours, other = WebAuthority(), WebAuthority()
    (tmp_path / "ca.pem").write_bytes(other.pem)
    async with (
        serving(ours.server(), hello) as url,
        Fetcher(Trust(ca_file=tmp_path / "ca.pem")) as fetcher,
        Fetcher() as by_the_system,
    ):
        for one in (fetcher, by_the_system):
            with pytest.raises(Unavailable, match="not trusted"):
                await one.get(url)
        (tmp_path / "ca.pem").write_bytes(ours.pem + other.pem)
        assert (await fetcher.get(url)).status == 200
        (tmp_path / "ca.pem").unlink()
        with pytest.raises(Unavailable, match="can't be read"):
            await fetcher.get(url)


async def test_the_name_is_looked_at(tmp_path: Path) -> None:
    """Unless another is expected, or none."""
    authority = WebAuthority()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)
    async with serving(authority.server("node-1"), hello) as url:
        for trust, good in (
            (Trust(ca_file=ca_file), False),
            (Trust(ca_file=ca_file, server_name="node-2"), False),
            (Trust(ca_file=ca_file, server_name="node-1"), True),
            (Trust(ca_file=ca_file, check_name=False), True),
        ):
            async with Fetcher(trust) as fetcher:
                if good:
                    assert (await fetcher.get(url)).status == 200
                    continue
                with pytest.raises(Unavailable, match="not trusted"):
                    await fetcher.get(url)


async def test_too_much_is_cut_off(tmp_path: Path) -> None:
    """An endless answer costs no more than the limit; a compressed one is not looked into."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    async def compressed(_: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    async with fetching(tmp_path, endless, limit=50_000) as (fetcher, url):
        with pytest.raises(Unavailable, match="more than 50000 bytes"):
            await fetcher.get(url)
    async with fetching(tmp_path, compressed) as (fetcher, url):
        with pytest.raises(Unavailable, match="compressed"):
            await fetcher.get(url)


async def test_who_does_not_answer_is_left(tmp_path: Path) -> None:
    """Nobody there, one that hangs before and one that hangs within its answer."""

    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    for handler in (hang, half):
        async with fetching(tmp_path, handler, deadline=0.2) as (fetcher, url):
            with pytest.raises(Unavailable, match="did not answer within"):
                await fetcher.get(url)
    with pytest.raises(Unavailable, match="does not answer"):
        async with Fetcher() as fetcher:
            await fetcher.get(url)


async def test_redirects_are_counted_and_stay_on_https(tmp_path: Path) -> None:
    """None by default; a credential does not follow to another origin."""

    async def round_about(request: web.Request) -> web.Response:
        if request.path == "/end":
            return await hello(request)
        target = {"/there": "/end", "/down": "http://127.0.0.1/", "/loop": "/loop"}[request.path]
        raise web.HTTPFound(target)

    async def across(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    async with fetching(tmp_path, round_about) as (fetcher, url):
        assert (await fetcher.get(f"{url}/there")).status == 302
    async with fetching(tmp_path, round_about, redirects=2) as (fetcher, url):
        assert (await fetcher.get(f"{url}/there", {"Authorization": "s"})).json()["auth"] == "s"
        with pytest.raises(Unavailable, match="no `https` address"):
            await fetcher.get(f"{url}/down")
        with pytest.raises(Unavailable, match="more than 2 times"):
            await fetcher.get(f"{url}/loop")
    authority = WebAuthority()
    (tmp_path / "both.pem").write_bytes(authority.pem)
    async with (
        serving(authority.server(), hello) as other,
        serving(authority.server(), across) as first,
        Fetcher(Trust(ca_file=tmp_path / "both.pem"), redirects=1) as fetcher,
    ):
        answer = await fetcher.get(f"{first}/?to={other}/end", {"Authorization": "s"})
        assert answer.json() == {"path": "/end", "auth": None}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.1",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::1]",
    ],
)
async def test_a_public_fetcher_connects_to_no_private_address(host: str) -> None:
    """By number or by name."""
    async with Fetcher(public_only=True, deadline=5) as fetcher:
        with pytest.raises(Unavailable, match=r"not an address of the public|does not answer"):
            await fetcher.get(f"https://{host}:1/")


async def test_a_stream_is_read_line_by_line(tmp_path: Path) -> None:
    """Until it ends, or falls silent."""

    async def lines(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\ntwo\n")
        if request.path == "/silent":
            await asyncio.Event().wait()
        return response

    async with fetching(tmp_path, lines) as (fetcher, url):
        async with fetcher.lines(f"{url}/", patience=10) as (status, found):
            assert (status, [line async for line in found]) == (200, [b"one\n", b"two\n"])
        async with fetcher.lines(f"{url}/silent", patience=0.2) as (_, found):
            with pytest.raises(Unavailable, match="silent"):
                assert [line async for line in found]
