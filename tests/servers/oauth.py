"""A real OAuth 2.0 server: npm's `oidc-provider` on a free port, behind HTTPS, with its clients told at the start.

What it is made of is locked in `oidc-provider/package-lock.json` and installed below `build/` by `make servers`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.web_pki import WebAuthority

HERE = Path(__file__).parent / "oidc-provider"
INSTALLED = Path(__file__).parents[2] / "build" / "oidc-provider"
CLIENT, WATCHER = "sojourn", "resource"
_BIN = Path(sys.executable).parent
_BELIEVED = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, kw_only=True)
class OAuthServer:
    """One that answers; `refresh` is a refresh token somebody consented to."""

    issuer: str
    ca_file: Path
    secret: str
    watcher_secret: str
    refresh: str | None


def install() -> Path:
    """Put it there, once; several tests may come at the same time."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with (INSTALLED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = (HERE / "package-lock.json").read_bytes()
        done = INSTALLED / "done"
        if not done.exists() or done.read_bytes() != wanted:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, INSTALLED)
            environment = {**os.environ, "PATH": f"{_BIN}:{os.environ['PATH']}"}
            if _BELIEVED.exists():  # by the machine; node brings a list of its own
                environment.setdefault("NODE_EXTRA_CA_CERTS", str(_BELIEVED))
            command = [str(_BIN / "npm"), "ci", "--no-fund", "--no-audit", "--ignore-scripts", "--silent"]
            subprocess.run(command, cwd=INSTALLED, check=True, env=environment, capture_output=True)
            done.write_bytes(wanted)
    return INSTALLED


@asynccontextmanager
async def oauth_server(
    *,
    jwks: dict[str, Any] | None = None,
    life: int = 60,
    revocation: bool = True,
    introspection: bool = True,
    jwt: bool = False,
    ahead: Path | None = None,
    log: Path | None = None,
) -> AsyncIterator[OAuthServer]:
    """The client `sojourn` proves itself by a key of `jwks`, or by a secret; the client `resource` may introspect.

    Its clock is as many seconds ahead as the file `ahead` says; what it says itself is written to `log`.
    """
    authority, secret, watcher = WebAuthority(), secrets.token_hex(20), secrets.token_hex(20)
    client: dict[str, Any] = {"client_id": CLIENT, "redirect_uris": ["https://127.0.0.1/back"]}
    client |= {"grant_types": ["client_credentials", "authorization_code", "refresh_token"]}
    if jwks is None:
        client |= {"client_secret": secret, "token_endpoint_auth_method": "client_secret_basic"}
    else:
        client |= {"jwks": jwks, "token_endpoint_auth_method": "private_key_jwt"}
        client |= {"token_endpoint_auth_signing_alg": "ES256"}
    watching = {"client_id": WATCHER, "client_secret": watcher, "redirect_uris": [], "response_types": []}
    watching |= {"grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_basic"}
    said = {
        "pem": authority.server_pem("127.0.0.1").decode(),
        "clients": [client, watching],
        "life": life,
        "revocation": revocation,
        "introspection": introspection,
        "jwt": jwt,
        "ahead": None if ahead is None else str(ahead),
    }
    with tempfile.TemporaryDirectory() as folder:
        ca_file = Path(folder) / "ca.pem"
        ca_file.write_bytes(authority.pem)
        async with _running(said, log or Path(os.devnull)) as told:
            issuer = f"https://127.0.0.1:{told['port']}"
            yield OAuthServer(
                issuer=issuer, ca_file=ca_file, secret=secret, watcher_secret=watcher, refresh=told["refresh"]
            )


@asynccontextmanager
async def _running(said: dict[str, Any], log: Path) -> AsyncIterator[Any]:
    place = await asyncio.to_thread(install)
    with log.open("ab") as words:
        process = await asyncio.create_subprocess_exec(
            _BIN / "node",
            HERE / "server.mjs",
            place,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
            start_new_session=True,
        )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(said).encode())
        process.stdin.close()
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        assert line, "the OAuth server did not start"
        yield json.loads(line)
    finally:
        os.killpg(process.pid, 9)
        await process.wait()


if __name__ == "__main__":
    install()
