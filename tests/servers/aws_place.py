"""A region of moto's AWS as the contract of engines sees it: whoever holds the keys of a session asks who they are."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from broker.engines.aws import Aws, Settings, open_engine
from broker.engines.aws.signing import Keys
from broker.engines.aws.sts import Sts
from broker.engines.protocol import Issued, Lent
from broker.model.role import Role
from ca.errors import Denied
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.secret import Secret
from fakes.world import role
from servers.moto import REGION, Moto, moto
from servers.place import new_prefix

TTL = timedelta(minutes=16)


class Ours:
    """Who the broker is; moto believes every token."""

    def __init__(self) -> None:
        self.audiences: list[str] = []

    async def token(self, audience: str) -> Secret:
        """One for `audience`."""
        self.audiences.append(audience)
        return Secret(f"svid-for-{audience}")


@dataclass
class AwsVisit:
    place: AwsPlace
    keys: Keys

    async def answers(self) -> bool:
        return await self.place.known(self.keys)


@dataclass
class AwsPlace:
    engine: Any
    role: Role
    clock: Clock
    prefix: str
    server: Moto
    sts: Sts
    tokens: Ours
    judged: bool

    async def login(self, issued: Issued) -> AwsVisit | None:
        visit = AwsVisit(self, keys_of(issued))
        return visit if await visit.answers() else None

    async def known(self, keys: Keys) -> bool:
        """Whether a server that judges signatures takes `keys` for a session of the role."""
        self.server.judges(True)
        try:
            return f":assumed-role/{self.server.role.rpartition('/')[2]}/" in (await self.sts.caller(keys)).arn
        except Denied:
            return False
        finally:
            self.server.judges(self.judged)


def keys_of(issued: Issued) -> Keys:
    """What an agent was handed."""
    secret = issued.secret
    name = str(issued.fields["access_key_id"])
    return Keys(access_key=name, secret_key=secret["secret_access_key"], session=secret["session_token"])


def by_boto3(server: Moto, issued: Issued) -> str | None:
    """Whom AWS takes an agent for that uses an unmodified client; None when it is refused."""
    keys, token = keys_of(issued), issued.secret["session_token"].reveal()
    client = server.client("sts", keys.access_key, keys.secret_key.reveal(), token)
    try:
        return str(client.get_caller_identity()["Arn"])
    except ClientError:
        return None


@asynccontextmanager
async def aws_place(*, authentication: str = "web-identity", **settings: Any) -> AsyncIterator[AwsPlace]:
    """A server of its own; moto can't judge what carries no signature, so for a JWT-SVID it judges nothing."""
    clock, tokens, judged = SystemClock(), Ours(), authentication == "keys"
    lent = Lent(clock=clock, tokens=tokens, target="cloud")
    async with moto() as server:
        said = settings_for(server, authentication=authentication)
        server.judges(judged)
        async with open_engine(said, lent) as engine, Sts.open(said, lent) as sts:
            the_role = role("cloud", "deploy", engine="aws", ttl=TTL, settings={"role_arn": server.role, **settings})
            found: Aws = engine
            yield AwsPlace(found, the_role, clock, new_prefix(), server, sts, tokens, judged)


def settings_for(server: Moto, **more: Any) -> Settings:
    """As an operator would say it; the keys are in the environment of this process."""
    said: dict[str, Any] = {"kind": "aws", "region": REGION, "endpoint": server.url, "tls_ca": str(server.ca_file)}
    if more.get("authentication") == "keys":
        os.environ["SOJOURN_TEST_AWS_KEY"] = server.user.access_key
        os.environ["SOJOURN_TEST_AWS_SECRET"] = server.user.secret_key
        said |= {"access_key": "env:SOJOURN_TEST_AWS_KEY", "secret_key": "env:SOJOURN_TEST_AWS_SECRET"}
    return Settings.model_validate_json(json.dumps({**said, **more}))
