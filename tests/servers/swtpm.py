"""Real TPMs in software: swtpm, made by swtpm_setup with an endorsement key's certificate of a maker of our own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("TSS2_LOG", "all+none")  # what a TPM refuses is what a test wants to see, not its log

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes TPMs: its issuing authority's certificate is in `issuer`, its root's in `root`."""

    folder: Path

    @property
    def issuer(self) -> Path:
        """PEM."""
        return self.folder / "issuercert.pem"

    @property
    def root(self) -> Path:
        """PEM."""
        return self.folder / "swtpm-localca-rootca-cert.pem"

    def tpm(self, state: Path) -> Path:
        """Make one, whose state rests in `state`, with certificates for its keys RSA 2048 and P-384."""
        state.mkdir(parents=True)
        settings = self._settings()
        command = [
            "swtpm_setup",
            "--tpm2",
            "--tpmstate",
            str(state),
            "--config",
            str(settings),
            "--pcr-banks",
            "sha256",
        ]
        subprocess.run([*command, "--create-ek-cert"], check=True, capture_output=True)
        return state

    def _settings(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        ca, options, setup = (self.folder / name for name in ("localca.conf", "options", "setup.conf"))
        options.write_text("--platform-manufacturer Sojourn\n")
        ca.write_text(
            f"statedir = {self.folder}\nsigningkey = {self.folder / 'signkey.pem'}\n"
            f"issuercert = {self.issuer}\ncertserial = {self.folder / 'certserial'}\n"
        )
        setup.write_text(
            f"create_certs_tool = {_localca()}\ncreate_certs_tool_config = {ca}\n"
            f"create_certs_tool_options = {options}\n"
        )
        return setup


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[str]:
    """The TPM of that folder, started anew: where it listens, as the TCG's software stack names it."""
    for _ in range(_TRIES):
        port = _port()
        place = [f"type=tcp,port={port + more},bindaddr=127.0.0.1" for more in (0, 1)]
        process = await asyncio.create_subprocess_exec(
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", place[0], "--ctrl", place[1],
            "--flags", "not-need-init,startup-clear", stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if await _answers(port, process):
            break
    else:
        raise RuntimeError("swtpm does not start")
    try:
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answers(port: int, process: asyncio.subprocess.Process) -> bool:
    """Whether it listens; its control port opens first, and one look at it costs the TPM nothing."""
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port + 1)
        except OSError:
            await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=0.02)
            continue
        writer.close()
        await writer.wait_closed()
        return True
    return False


def _port() -> int:
    """One that is free, and so is the next: the stack expects the control port there."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


@cache
def _localca() -> Path:
    for path in (Path("/usr/bin/swtpm_localca"), Path("/usr/share/swtpm/swtpm-localca")):
        if path.exists():
            return path
    raise RuntimeError("swtpm-tools is not installed: see tests/servers/packages.txt")
