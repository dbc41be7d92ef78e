"""An OAuth 2.0 server as a service sees it that asks it about each token it is shown (RFC 7662)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from faults.eyes.bearer import BearerEyes
from faults.eyes.http import Https

_CLEAR = re.compile(r"client_secret=\S{0,12}")


@dataclass
class OAuthEyes(BearerEyes):
    """`client` may ask, by its `secret`; `log` is what the server says."""

    https: Https
    client: str
    secret: str = field(repr=False)
    log: Path

    async def opens(self, user: str, secret: str) -> bool:
        """Whether the server calls it active."""
        login = base64.b64encode(f"{self.client}:{self.secret}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode({"token": secret}).encode()
        status, answer = self.https.ask("POST", "/token/introspection", headers, body)
        if status != 200:
            raise RuntimeError(f"the service was refused: {status}")
        return bool(json.loads(answer)["active"])

    def clear(self, log: bytes) -> Iterator[str]:
        """Bodies of requests are not logged; were they, the client's own secret would stand out."""
        yield from _CLEAR.findall(log.decode(errors="replace"))

    async def close(self) -> None:
        """Look no more."""
        self.https.close()
