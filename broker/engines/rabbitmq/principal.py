"""The principal itself: a user without tags, whose permissions come last.

The server is sent a salted hash of 256 random bits and never the password. A user that has no permission yet can open
no virtual host, so whatever stops between the requests leaves something of no use to anybody.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable

from broker.engines.rabbitmq.reach import Reach
from broker.engines.rabbitmq.settings import RoleSettings, anchored
from ca.errors import NotFound

_FOUND = frozenset({200, 404})


def hashed(password: str) -> dict[str, str]:
    """RabbitMQ's own form: four bytes of salt, then SHA-256 over salt and password."""
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
    }


async def put_user(reach: Reach, name: str, password: str | None, *, tags: str = "") -> bool:
    """Let `password`, or none at all, open `name`; whether the user is new. Raises TargetDown, OutcomeUnknown."""
    secret = {"password_hash": ""} if password is None else hashed(password)
    answer = await reach.put("users", name, body={**secret, "tags": tags})
    return answer.status == 201


async def is_there(reach: Reach, name: str) -> bool:
    """Whether there is such a user. Raises TargetDown."""
    return (await reach.get("users", name, expected=_FOUND)).status == 200


async def furnish(reach: Reach, name: str, role: RoleSettings, in_time: Callable[[], None]) -> None:
    """Limit, topics, and last of all the permissions that open the doors; `in_time` is asked before each request.

    Raises:
        Unavailable: it is too late, or a virtual host of the role is not there.
        TargetDown, OutcomeUnknown: see `reach.py`.
    """
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: reach.put("user-limits", name, "max-connections", body={"value": role.sessions})
    ]
    for topic in role.topics:
        rights = {"exchange": topic.exchange, "write": anchored(topic.write), "read": anchored(topic.read)}
        steps.append(_put(reach, "topic-permissions", topic.vhost, name, rights))
    for right in role.permissions:
        rights = {
            "configure": anchored(right.configure),
            "write": anchored(right.write),
            "read": anchored(right.read),
        }
        steps.append(_put(reach, "permissions", right.vhost, name, rights))
    for step in steps:
        in_time()
        await step()


def _put(reach: Reach, what: str, vhost: str, name: str, rights: dict[str, str]) -> Callable[[], Awaitable[object]]:
    return lambda: reach.put(what, vhost, name, body=rights)


async def permitted(reach: Reach, name: str) -> list[str]:
    """The virtual hosts a user may open. Raises NotFound, TargetDown."""
    answer = await reach.get("users", name, "permissions", expected=_FOUND)
    if answer.status == 404:
        raise NotFound("the target has no principal of that name")
    return [row.text("vhost") for row in answer.rows()]


async def has_password(reach: Reach, name: str) -> bool:
    """Whether anything opens it. Raises NotFound, TargetDown."""
    answer = await reach.get("users", name, expected=_FOUND)
    if answer.status == 404:
        raise NotFound("the target has no principal of that name")
    return answer.row().text("password_hash") != ""


async def names(reach: Reach, prefix: str) -> list[str]:
    """Every user whose name begins with `prefix`, sorted. Raises TargetDown."""
    answer = await reach.get("users", query="columns=name")
    return sorted(name for row in answer.rows() if (name := row.text("name")).startswith(prefix))
