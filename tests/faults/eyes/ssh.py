"""What hosts with OpenSSH believe of a certificate, by their own `ssh-keygen`: it is on their list, or opens."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class SshEyes:
    """`revoked` is the list hosts read at each login; `log` is empty, since no host is asked for anything."""

    revoked: Path
    log: Path

    lasting = False
    lingers = False

    async def principals(self, prefix: str) -> dict[str, bool] | None:
        """Nobody can tell: a certificate exists where it was handed to."""
        return None

    async def sessions(self, prefix: str) -> list[tuple[str, str]]:
        """They survive, and that is said when it is issued."""
        return []

    async def opens(self, user: str, secret: str) -> bool:
        """Whether hosts that read the list would let this certificate in; without a list they let nobody in."""
        if not self.revoked.exists() or not secret.startswith("ssh-"):
            return False
        with tempfile.NamedTemporaryFile("w", suffix="-cert.pub") as file:
            file.write(f"{secret}\n")
            file.flush()
            command = ["ssh-keygen", "-Q", "-f", str(self.revoked), file.name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if ": ok" not in done.stdout and "revoked" not in done.stdout.lower():
            raise RuntimeError(f"ssh-keygen can't tell of {user}: {done.stdout}{done.stderr}")
        return done.returncode == 0

    def clear(self, log: bytes) -> Iterator[str]:
        """No secret is sent anywhere."""
        yield from ()

    async def close(self) -> None:
        """Nothing is held."""
