"""STS by the letter: every answer is told beforehand, every request is kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from broker.engines.aws import Aws, Settings, open_engine
from broker.engines.aws.answers import NAMESPACE
from broker.engines.protocol import Issued, Lent
from broker.model.role import Role
from ca.runtime.secret import Secret
from fakes.clock import ManualClock
from fakes.web_pki import WebAuthority
from fakes.world import role

ROLE = "arn:aws:iam::123456789012:role/agents/deploy"
NAME = "sj_aaaaaaaa_bbbb"
LIFE = timedelta(minutes=16)


class Ours:
    """Who the broker is."""

    async def token(self, audience: str) -> Secret:
        return Secret(f"svid-for-{audience}")


def answer(action: str = "AssumeRoleWithWebIdentity", *, ends_at: datetime, **changes: str | None) -> str:
    """A session as STS writes it; `changes` are texts of elements by their name, None leaves one out."""
    said: dict[str, str | None] = {
        "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
        "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG",
        "SessionToken": "FQoGZXIvYXdzEBYaD",
        "Expiration": f"{ends_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "Arn": f"arn:aws:sts::123456789012:assumed-role/deploy/{NAME}",
    }
    said |= changes
    arn = "" if said["Arn"] is None else f"<Arn>{said.pop('Arn')}</Arn>"
    keys = "".join(f"<{name}>{text}</{name}>" for name, text in said.items() if text is not None)
    whose = f"<AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId>{arn}</AssumedRoleUser>"
    result = f"<{action}Result>{whose}<Credentials>{keys}</Credentials></{action}Result>"
    return f'<{action}Response xmlns="{NAMESPACE}">{result}</{action}Response>'


def refusal(code: str, message: str = "no") -> str:
    """An error as STS writes it."""
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return f'<ErrorResponse xmlns="{NAMESPACE}">{error}<RequestId>1</RequestId></ErrorResponse>'


@dataclass
class FakeSts:
    """See the module."""

    body: bytes = b""
    status: int = 200
    asked: list[tuple[dict[str, str], dict[str, str]]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        form = dict(parse_qsl((await request.read()).decode(), strict_parsing=True))
        self.asked.append((dict(request.headers), form))
        return web.Response(body=self.body, status=self.status, content_type="text/xml")


@dataclass
class Region:
    """An engine over it."""

    engine: Aws
    sts: FakeSts
    role: Role
    clock: ManualClock

    async def create(self, life: timedelta = LIFE, **settings: Any) -> Issued:
        """A session of the role, or of one with these further settings."""
        wanted = role("cloud", "deploy", engine="aws", ttl=LIFE, settings={**self.role.settings, **settings})
        now = self.clock.now()
        handle = self.engine.plan(wanted, NAME)
        return await self.engine.create(handle, wanted, now + life, now + timedelta(seconds=10))

    @property
    def form(self) -> dict[str, str]:
        """What was posted last."""
        return self.sts.asked[-1][1]


@asynccontextmanager
async def region(tokens: Any = None, **settings: Any) -> AsyncIterator[Region]:
    """A region that gives a good session, until it is told something else."""
    clock, sts, authority = ManualClock(), FakeSts(), WebAuthority()
    sts.body = answer(ends_at=clock.now() + timedelta(minutes=15)).encode()
    app = web.Application()
    app.router.add_post("/", sts.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server())
        await site.start()
        with tempfile.TemporaryDirectory() as folder:
            ca_file = Path(folder) / "ca.pem"
            ca_file.write_bytes(authority.pem)
            url = f"https://127.0.0.1:{runner.addresses[0][1]}"
            said = {"kind": "aws", "region": "eu-central-1", "endpoint": url, "tls_ca": str(ca_file), **settings}
            lent = Lent(clock=clock, tokens=tokens or Ours(), target="cloud")
            async with open_engine(Settings.model_validate_json(json.dumps(said)), lent) as engine:
                the_role = role("cloud", "deploy", engine="aws", ttl=LIFE, settings={"role_arn": ROLE})
                yield Region(engine, sts, the_role, clock)
    finally:
        await runner.cleanup()
