"""An OAuth server by the letter of RFC 8414, 8693, 7009 and 7662, for what the real one of the tests lacks: exchange.

It checks a subject token as a server that federates with us does, remembers what it was sent, and answers whatever a
test puts into `answers` instead: status, headers and body of the next requests at one path.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from fakes.web_pki import WebAuthority

ACCESS = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
METADATA = "/.well-known/oauth-authorization-server"


@dataclass
class FakeOAuth:
    """What it knows and was asked."""

    ca_file: Path
    issuer: str = ""
    judge: Callable[[str], bool] = lambda _: True
    life: Any = 60
    rotates: bool = False
    offers: frozenset[str] = frozenset({"revocation", "introspection"})
    active: set[str] = field(default_factory=set)
    refresh: str = "refresh-1"
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: dict[str, list[tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(list))

    def answer(self, path: str, body: Any, status: int = 200) -> None:
        """What the next request at `path` is told instead."""
        self.answers[path].append((status, body if isinstance(body, bytes) else json.dumps(body).encode()))

    def metadata(self) -> dict[str, Any]:
        """RFC 8414, 2."""
        document = {"issuer": self.issuer, "token_endpoint": f"{self.issuer}/token"}
        return document | {f"{name}_endpoint": f"{self.issuer}/{name}" for name in self.offers}

    async def handle(self, request: web.Request) -> web.Response:
        """Every path."""
        fields = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.path, fields))
        self.headers.append(dict(request.headers))
        if self.answers[request.path]:
            status, body = self.answers[request.path].pop(0)
            return web.Response(status=status, body=body, content_type="application/json")
        if request.path.startswith(METADATA):
            return web.json_response(self.metadata())
        reply = {"/token": self._token, "/revocation": self._revoke, "/introspection": self._introspect}
        return reply[request.path](fields) if request.path in reply else web.Response(status=404)

    def _token(self, fields: dict[str, str]) -> web.Response:
        given = {"token_type": "Bearer", "expires_in": self.life, "scope": fields.get("scope", "")}
        if fields["grant_type"] == EXCHANGE:
            known = fields["subject_token_type"] == JWT and self.judge(fields["subject_token"])
            if not known:
                return web.json_response({"error": "invalid_request"}, status=400)
            given["issued_token_type"] = fields["requested_token_type"]
        if fields["grant_type"] == "refresh_token":
            if fields["refresh_token"] != self.refresh:
                return web.json_response({"error": "invalid_grant"}, status=400)
            if self.rotates:
                self.refresh = f"refresh-{secrets.token_hex(4)}"
            given["refresh_token"] = self.refresh
        token = secrets.token_urlsafe(24)
        self.active.add(token)
        return web.json_response({**given, "access_token": token})

    def _revoke(self, fields: dict[str, str]) -> web.Response:
        self.active.discard(fields["token"])
        return web.Response()

    def _introspect(self, fields: dict[str, str]) -> web.Response:
        return web.json_response({"active": fields["token"] in self.active})


@asynccontextmanager
async def fake_oauth(path: str = "", **facts: Any) -> AsyncIterator[FakeOAuth]:
    """One that answers; its issuer ends in `path`."""
    authority = WebAuthority()
    with tempfile.TemporaryDirectory() as folder:
        ca_file = Path(folder) / "ca.pem"
        ca_file.write_bytes(authority.pem)
        server = FakeOAuth(ca_file, **facts)
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", server.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server())
            await site.start()
            port = runner.addresses[0][1]
            server.issuer = f"https://127.0.0.1:{port}{path}"
            yield server
        finally:
            await runner.cleanup()
