"""A Redis as its owner sees it, through `redis-cli`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SESSION = re.compile(r"^id=(\d+) .* user=(\S+) ")


@dataclass
class RedisEyes:
    """`password` is the user root's; `key` is one that every agent may read."""

    host: str
    port: int
    password: str = field(repr=False)
    key: str
    log: Path

    lasting = False
    lingers = False

    async def principals(self, prefix: str) -> dict[str, bool]:
        """Every user whose name begins so, and whether it is on."""
        found = (line.split() for line in self._ask("ACL", "LIST"))
        return {words[1]: "on" in words[2:4] for words in found if words[1].startswith(prefix)}

    async def sessions(self, prefix: str) -> list[tuple[str, str]]:
        """A number and the user of each open one."""
        found = [match for match in map(_SESSION.search, self._ask("CLIENT", "LIST")) if match]
        return [(match[1], match[2]) for match in found if match[2].startswith(prefix)]

    async def opens(self, user: str, secret: str) -> bool:
        """Whether somebody gets in with it."""
        return self._client(user, secret, "GET", self.key).stdout == "lamp\n"

    def clear(self, log: bytes) -> Iterator[str]:
        """Redis logs no commands."""
        yield from ()

    async def close(self) -> None:
        """Nothing is held."""

    def _ask(self, *command: str) -> list[str]:
        done = self._client("root", self.password, *command)
        if done.returncode or done.stdout.startswith(("ERR", "NOPERM", "WRONGPASS", "NOAUTH")):
            raise RuntimeError(f"root was refused: {done.stdout}{done.stderr}")
        return done.stdout.splitlines()

    def _client(self, user: str, password: str, *command: str) -> subprocess.CompletedProcess[str]:
        said = ["redis-cli", "-h", self.host, "-p", str(self.port), "--user", user, *command]
        known = {**os.environ, "REDISCLI_AUTH": password}
        return subprocess.run(said, env=known, capture_output=True, text=True, check=False)
