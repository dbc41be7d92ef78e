"""What hosts with OpenSSH believe of a certificate, by their own `ssh-keygen`: it is on their list, or opens."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults.eyes.bearer import BearerEyes


@dataclass
class SshEyes(BearerEyes):
    """`revoked` is the list hosts read at each login; `log` is empty, since no host is asked for anything."""

    revoked: Path
    log: Path

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
