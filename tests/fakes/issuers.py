"""A CI system's issuer of OpenID Connect tokens, over real TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from attestor.methods.platform.keyset import KeySet
from attestor.methods.platform.oidc import IssuerSettings, Platform
from attestor.methods.platform.subjects import SubjectPattern
from ca.runtime.clock import Clock
from ca.runtime.fetch import Fetcher, Trust
from fakes.service_accounts import Algorithm, TokenSigner
from fakes.web_pki import WebAuthority

SUBJECT = "repo:acme/app:ref:refs/heads/main"


class FakeIssuer:
    """What it publishes, and what is wrong with it."""

    def __init__(self, algorithm: Algorithm, now: Callable[[], datetime]) -> None:
        self._now = now
        self.signer = TokenSigner("", algorithm)
        self.authority = WebAuthority("issuer CA")
        self.document: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document
        self.jwks: Callable[[dict[str, Any]], dict[str, Any]] = lambda keys: keys
        self.status = 200
        self.fetched = 0

    def token(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A job's token; `changes` are claims, None leaves one out."""
        now = self._now()
        claims = {
            "iss": self.signer.issuer,
            "sub": SUBJECT,
            "aud": "sojourn",
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=10)).timestamp()),
            "jti": "1",
            "repository": "acme/app",
            "protected": True,
            "run": 7,
            **changes,
        }
        return self.signer.sign({name: value for name, value in claims.items() if value is not None}, header)

    async def discovery(self, _: web.Request) -> web.Response:
        """`/.well-known/openid-configuration`."""
        found = {"issuer": self.signer.issuer, "jwks_uri": f"{self.signer.issuer}/keys"}
        return web.json_response(self.document(found), status=self.status)

    async def keys(self, _: web.Request) -> web.Response:
        """The key set."""
        self.fetched += 1
        return web.json_response(self.jwks(self.signer.jwks()), status=self.status)


@asynccontextmanager
async def issuer(algorithm: Algorithm, now: Callable[[], datetime]) -> AsyncIterator[FakeIssuer]:
    """One on a free port."""
    fake = FakeIssuer(algorithm, now)
    app = web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", fake.discovery), web.get("/keys", fake.keys)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=fake.authority.server()).start()
    fake.signer.issuer = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


@asynccontextmanager
async def platform(
    folder: Path, clock: Clock, algorithm: Algorithm = "RS256", **changes: Any
) -> AsyncIterator[tuple[FakeIssuer, Platform]]:
    """An issuer, and what the attestor server has of it, under the name `ci`."""
    async with issuer(algorithm, clock.now) as fake:
        (folder / "issuer.pem").write_bytes(fake.authority.pem)
        settings = IssuerSettings(
            **{
                "name": "ci",
                "issuer": fake.signer.issuer,
                "subjects": (SubjectPattern.parse("repo:acme/*:ref:refs/heads/main"),),
                "claims": ("repository", "protected", "run", "absent"),
                **changes,
            }
        )
        async with Fetcher(Trust(ca_file=folder / "issuer.pem")) as fetcher:
            yield fake, Platform(settings, KeySet(settings.issuer, fetcher, clock))
