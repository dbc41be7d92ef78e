"""A real HTTP server that speaks as AWS does, in a process of its own: `moto_server`, behind HTTPS on a free port.

    async with moto() as server:
        user, role = server.user, server.role      # made by boto3, before the server began to judge signatures

From then on every request must be signed as AWS wants it, and allowed by the policies there; `server.judges(False)` is
for what carries no signature, which moto judges not at all. Nothing of ours but a test's web PKI is needed to use it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from fakes.web_pki import WebAuthority
from servers import standing

REGION, ACCOUNT = "eu-central-1", "123456789012"
_BIN = Path(sys.executable).parent
_ENDING = Path(__file__).with_name("moto_ending.py")
_ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:*", "Resource": "*"}]}


@dataclass(frozen=True, kw_only=True)
class User:
    """An IAM user, by the keys of it."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Moto:
    """One that answers."""

    url: str
    ca_file: Path
    log_file: Path
    user: User
    role: str

    @property
    def log(self) -> str:
        """Every request line so far."""
        return self.log_file.read_text(errors="replace")

    def client(self, service: str, access_key: str, secret_key: str, session: str | None = None) -> Any:
        """The foreign client: boto3 with these keys."""
        keys = {"access_key_id": access_key, "secret_access_key": secret_key, "session_token": session}
        return _client(self.url, self.ca_file, service, keys)

    def judges(self, whether: bool) -> None:  # noqa: FBT001 - one question
        """Whether signatures and policies count from now on."""
        _judges(self.url, self.ca_file, whether)


@asynccontextmanager
async def moto(ahead: Path | None = None) -> AsyncIterator[Moto]:
    """A server with a user `sojourn`, and a role `deploy` it may assume; `ahead`: see `moto_ending.py`."""
    authority = WebAuthority()
    with tempfile.TemporaryDirectory(prefix="sj-moto-", dir="/tmp") as name:
        folder = Path(name)
        ca_file, pem = folder / "ca.pem", folder / "server.pem"
        ca_file.write_bytes(authority.pem)
        pem.write_bytes(authority.server_pem("127.0.0.1"))
        port = standing.free_port()
        url = f"https://127.0.0.1:{port}"
        program = [_BIN / "moto_server"] if ahead is None else [sys.executable, "-P", _ENDING, ahead]
        command = [*program, "-H", "127.0.0.1", "-p", port, "-c", pem, "-k", pem]
        process = standing.launched([str(word) for word in command], folder / "log")
        try:
            await asyncio.to_thread(standing.wait, process, folder / "log", lambda: _answers(url, ca_file))
            user, role = await asyncio.to_thread(_furnish, url, ca_file)
            yield Moto(url=url, ca_file=ca_file, log_file=folder / "log", user=user, role=role)
        finally:
            standing.stop(process, signal.SIGKILL)


def _furnish(url: str, ca_file: Path) -> tuple[User, str]:
    anybody = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "before-anything-is-judged"}
    iam = _client(url, ca_file, "iam", anybody)
    iam.create_user(UserName="sojourn")
    iam.put_user_policy(UserName="sojourn", PolicyName="assume", PolicyDocument=json.dumps(_ANYTHING))
    keys = iam.create_access_key(UserName="sojourn")["AccessKey"]
    principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:user/sojourn"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = iam.create_role(RoleName="deploy", Path="/agents/", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.put_role_policy(RoleName="deploy", PolicyName="any", PolicyDocument=json.dumps(_ANYTHING))
    _judges(url, ca_file, True)
    return User(access_key=keys["AccessKeyId"], secret_key=keys["SecretAccessKey"]), str(role)


def _client(url: str, ca_file: Path, service: str, keys: Mapping[str, str | None]) -> Any:
    named: dict[str, Any] = {f"aws_{name}": value for name, value in keys.items()}
    return boto3.client(service, endpoint_url=url, region_name=REGION, verify=str(ca_file), **named)


def _judges(url: str, ca_file: Path, whether: bool) -> None:  # noqa: FBT001 - see `judges`
    count, headers = (b"0" if whether else b"inf"), {"Content-Type": "text/plain"}
    _open(urllib.request.Request(f"{url}/moto-api/reset-auth", count, headers, method="POST"), ca_file)


def _open(request: urllib.request.Request, ca_file: Path) -> None:
    with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=ca_file)) as answer:
        answer.read()


def _answers(url: str, ca_file: Path) -> bool:
    _open(urllib.request.Request(f"{url}/moto-api/"), ca_file)
    return True
