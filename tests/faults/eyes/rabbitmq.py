"""A RabbitMQ as its owner sees it, over the management API, and as a guest meets it, over AMQP."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

_NOBODY = "sj_claim_"
_CLEAR = re.compile(r'"password"\s*:\s*"\S{0,12}')


@dataclass
class RabbitmqEyes:
    """`url` is the management API's, `password` the user owner's."""

    url: str
    vhost: str
    password: str = field(repr=False)
    log: Path

    lasting = False
    lingers = False

    async def principals(self, prefix: str) -> dict[str, bool]:
        """Every user whose name begins so, and whether some password opens."""
        users = [row for row in self._get("owner", self.password, "users") if row["name"].startswith(prefix)]
        mine = [row for row in users if not row["name"].startswith(_NOBODY)]
        return {row["name"]: bool(row["password_hash"]) for row in mine}

    async def sessions(self, prefix: str) -> list[tuple[str, str]]:
        """By the server's tracking of users; its statistics of connections are late."""
        found = []
        for name in await self.principals(prefix):
            limits = self._get("owner", self.password, "connections", "username", name)
            found += [(str(row["name"]), name) for row in limits]
        return found

    async def opens(self, user: str, secret: str) -> bool:
        """Whether somebody gets in with it: the management API is closed to them, but says which of the two it is."""
        try:
            self._get(user, secret, "whoami")
        except urllib.error.HTTPError as error:
            with error:
                return b"Not management user" in error.read()
        return True

    def clear(self, log: bytes) -> Iterator[str]:
        """Bodies of requests are not logged; were they, a password would stand out."""
        yield from _CLEAR.findall(log.decode(errors="replace"))

    async def close(self) -> None:
        """Nothing is held."""

    def _get(self, user: str, password: str, *path: str) -> Any:
        url = "/".join((self.url, "api", *(quote(part, safe="") for part in path)))
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
