"""One target that is a region of moto's AWS, whose sessions end by themselves; its clock leaps with the broker's."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from faults.broker_process import DATABASE
from faults.eyes.aws import AwsEyes
from faults.eyes.http import Https
from faults.grounds.targets import two_roles
from servers.moto import REGION, Moto, moto

_READ_ONLY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}],
}


@dataclass
class AwsGround:
    """See the module."""

    server: Moto
    clock: Path
    eyes: AwsEyes

    def facts(self) -> dict[str, Any]:
        """Of a case."""
        engine = {"kind": "aws", "region": REGION, "endpoint": "https://127.0.0.1:@PORT@"}
        engine |= {"tls_ca": str(self.server.ca_file), "authentication": "keys"}
        engine |= {"access_key": "env:SOJOURN_TARGET_KEY", "secret_key": "env:SOJOURN_TARGET_PASSWORD"}
        read, write = ({"role_arn": self.server.role, **less} for less in ({"policy": _READ_ONLY}, {}))
        said = {"engine": engine, "roles": two_roles(read, write, ttl="16m")}
        user = self.server.user
        return {
            "targets": {DATABASE: {"at": ["127.0.0.1", self.eyes.https.port], "tls": True, "said": said}},
            "clock": str(self.clock),
            "lasting": self.eyes.lasting,
            "environment": {"SOJOURN_TARGET_KEY": user.access_key, "SOJOURN_TARGET_PASSWORD": user.secret_key},
            "room": {"kind": "aws"},
            "superuser": {},
        }

    async def clear(self) -> None:
        """No time has leapt; sessions of an earlier world have names no other world has."""
        self.clock.write_text("0")

    async def restart(self) -> None:
        """AWS does not."""


@asynccontextmanager
async def aws_ground() -> AsyncIterator[AwsGround]:
    """A server of its own."""
    with tempfile.TemporaryDirectory(prefix="sj-aws-", dir="/tmp") as name:
        clock = Path(name, "ahead")
        clock.write_text("0")
        async with moto(ahead=clock) as server:
            https = Https(urlsplit(server.url).port or 443, server.ca_file)
            yield AwsGround(server, clock, AwsEyes(https, REGION, server.role, server.log_file))
