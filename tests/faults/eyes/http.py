"""One connection over HTTPS to a server that is looked at often; it is made anew when the server closed it."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Https:
    """`ca_file`: by what the server at `port` is known."""

    port: int
    ca_file: Path
    _open: http.client.HTTPSConnection | None = field(default=None, repr=False)

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer; asked again once where the connection was an old one."""
        try:
            return self._asked(method, path, headers, body)
        except (http.client.HTTPException, OSError):
            self.close()
            return self._asked(method, path, headers, body)

    def close(self) -> None:
        """Hold nothing."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _asked(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        if self._open is None:
            context = ssl.create_default_context(cafile=self.ca_file)
            self._open = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        self._open.request(method, path, body, dict(headers))
        with self._open.getresponse() as answer:
            return answer.status, answer.read()
