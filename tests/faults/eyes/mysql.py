"""A MariaDB as its owner sees it, through the client `mariadb`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_USERS = "SELECT user, COALESCE(JSON_VALUE(priv, '$.account_locked'), 0) FROM mysql.global_priv"
_SESSIONS = "SELECT id, user FROM information_schema.processlist"
_CLEAR = re.compile(r"IDENTIFIED BY\s+'(?!<secret>)\S{0,12}", re.IGNORECASE)


@dataclass
class MysqlEyes:
    """`password` is root's, `log` where every statement is written."""

    host: str
    port: int
    password: str = field(repr=False)
    log: Path

    lasting = False
    lingers = False

    async def principals(self, prefix: str) -> dict[str, bool]:
        """Every user whose name begins so, and whether it is not locked."""
        found = (line.split("\t") for line in self._ask("root", self.password, _USERS).splitlines())
        return {user: locked not in {"1", "true"} for user, locked in found if user.startswith(prefix)}

    async def sessions(self, prefix: str) -> list[tuple[str, str]]:
        """A number and the user of each open one."""
        found = (line.split("\t") for line in self._ask("root", self.password, _SESSIONS).splitlines())
        return [(number, user) for number, user in found if user.startswith(prefix)]

    async def opens(self, user: str, secret: str) -> bool:
        """Whether somebody gets in with it."""
        return self._client(user, secret, "SELECT 1").returncode == 0

    def clear(self, log: bytes) -> Iterator[str]:
        """What was sent that is no verifier."""
        yield from _CLEAR.findall(log.decode(errors="replace"))

    async def close(self) -> None:
        """Nothing is held."""

    def _ask(self, user: str, password: str, statements: str) -> str:
        done = self._client(user, password, statements)
        done.check_returncode()
        return done.stdout

    def _client(self, user: str, password: str, statements: str) -> subprocess.CompletedProcess[str]:
        command = ["mariadb", "--no-defaults", "-N", "-B", "-h", self.host, "-P", str(self.port), "-u", user]
        known = {**os.environ, "MYSQL_PWD": password}
        return subprocess.run(command, input=statements, env=known, capture_output=True, text=True, check=False)
