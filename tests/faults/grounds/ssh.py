"""One target that is a list hosts read: who may log in is what the list says of certificates."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.broker_process import DATABASE
from faults.eyes.ssh import SshEyes
from faults.grounds.targets import two_roles


@dataclass
class SshGround:
    """See the module."""

    eyes: SshEyes

    def facts(self) -> dict[str, Any]:
        """Of a case; nothing is reached, so nothing is tapped."""
        engine = {"kind": "ssh", "host": "127.0.0.1", "port": 22, "revocations": [str(self.eyes.revoked)]}
        read, write = ({"principals": [name]} for name in ("reader", "writer"))
        return {
            "targets": {DATABASE: {"said": {"engine": engine, "roles": two_roles(read, write)}}},
            "room": {"kind": "ssh"},
            "superuser": {},
        }

    async def clear(self) -> None:
        """Hosts with no list."""
        for path in self.eyes.revoked.parent.glob(f"{self.eyes.revoked.name}*"):
            path.unlink()

    async def restart(self) -> None:
        """A host reads the list at each login, whoever restarted."""


@asynccontextmanager
async def ssh_ground() -> AsyncIterator[SshGround]:
    """A folder of its own."""
    with tempfile.TemporaryDirectory(prefix="sj-krl-", dir="/tmp") as folder:
        log = Path(folder, "log")
        log.touch()
        yield SshGround(SshEyes(Path(folder, "revoked"), log))
