"""Where lives of chance are played: one kind of target, made ready for worlds that come and go, and eyes on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from faults.grounds.aws import aws_ground
from faults.grounds.kubernetes import kubernetes_ground
from faults.grounds.mysql import mysql_ground
from faults.grounds.oauth import oauth_ground
from faults.grounds.postgres import postgres_ground, static_ground
from faults.grounds.rabbitmq import rabbitmq_ground
from faults.grounds.redis import redis_ground
from faults.grounds.ssh import ssh_ground
from faults.oracle import Eyes


class Ground(Protocol):
    """What a driver of lives needs of one kind of target."""

    @property
    def eyes(self) -> Eyes:
        """The oracle's."""

    def facts(self) -> dict[str, Any]:
        """Of a `Case`: targets, environment, room, superuser."""

    async def clear(self) -> None:
        """Nothing of an earlier world is left, the claim neither."""

    async def restart(self) -> None:
        """The server loses power and has it again; between two lives."""


GROUNDS: Mapping[str, Callable[[], AbstractAsyncContextManager[Ground]]] = {
    "postgres": postgres_ground, "mysql": mysql_ground, "redis": redis_ground, "rabbitmq": rabbitmq_ground,
    "ssh": ssh_ground, "static": static_ground, "kubernetes": kubernetes_ground,
    "oauth": oauth_ground, "aws": aws_ground,
}  # fmt: skip
"""By the engine's kind."""
