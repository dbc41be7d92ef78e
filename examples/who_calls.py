"""A service that knows who calls it, and refuses who is not of its team. Run it where SPIFFE_ENDPOINT_SOCKET is set.

sojourn up                                # prints the socket
python examples/who_calls.py spiffe://example.org/team/**
"""

import asyncio
import sys

from aiohttp import web

from attestor.client import IdPattern, X509Source, guard, peer


async def hello(request: web.Request) -> web.Response:
    """Say who it is, proven anew in this very request."""
    return web.Response(text=f"hello {peer(request).id}\n")


async def main(wanted: str) -> None:
    """Serve until it is ended; certificates are rotated by themselves."""
    async with X509Source.open() as source:
        app = web.Application()
        context = guard(app, source, IdPattern.parse(wanted))
        app.router.add_get("/", hello)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        print(f"https://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
