"""PEM files kept fresh, for programs that know nothing but files.

    <folder>/current -> .2026-11-23T20.15.00.000000Z-9f31/
        svid.pem    the chain, the leaf first
        key.pem     its key, mode 0600
        bundle.pem  the authorities of its own trust domain

All files of one state lie in a folder of their own and one link is swapped, so a reader that opens them through the
link's target never sees a key beside another's certificate. The folder before is kept for readers that have it open;
older ones are removed. When the identity is withdrawn the link is removed first and then every key.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from attestor.client.errors import NoIdentity
from attestor.client.source import X509Source
from ca.errors import Malformed, Unavailable
from ca.spiffe.bundle import Bundle
from ca.spiffe.x509svid import X509Svid

CURRENT = "current"

_PREFIX = ".svid-"


class SvidFiles:
    """The files in `folder`, which is made if need be and belongs to this alone."""

    def __init__(self, folder: Path) -> None:
        """Make the folder.

        Raises:
            Malformed: it is there and others may write in it.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise Malformed(f"`{folder}` must belong to this user and be writable by nobody else")
        self._folder = folder

    @property
    def current(self) -> Path:
        """The link to the newest state."""
        return self._folder / CURRENT

    def write(self, svid: X509Svid, bundle: Bundle) -> Path:
        """Put a new state in place and answer its folder. Raises Unavailable when the disk refuses."""
        state = self._folder / f"{_PREFIX}{secrets.token_hex(8)}"
        try:
            state.mkdir(mode=0o700)
            _write(state / "svid.pem", svid.chain_pem())
            _write(state / "key.pem", svid.key_pem())
            _write(state / "bundle.pem", b"".join(one.public_bytes(Encoding.PEM) for one in bundle.x509_authorities))
            before = self._target()
            self._swap(state.name)
        except OSError as error:
            shutil.rmtree(state, ignore_errors=True)
            raise Unavailable(f"can't write the SVID to `{self._folder}`: {error.strerror}") from error
        self._sweep(keep={state.name, before})
        return state

    def withdraw(self) -> None:
        """Remove everything: this process has no identity any more."""
        self.current.unlink(missing_ok=True)
        self._sweep(keep=set())

    def _target(self) -> str | None:
        try:
            return self.current.readlink().name
        except OSError:
            return None

    def _swap(self, name: str) -> None:
        link = self._folder / f"{_PREFIX}link-{secrets.token_hex(4)}"
        link.symlink_to(name)
        link.replace(self.current)

    def _sweep(self, keep: set[str | None]) -> None:
        for path in self._folder.glob(f"{_PREFIX}*"):
            if path.name in keep:
                continue
            if path.is_symlink():
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path, ignore_errors=True)


async def keep_files(source: X509Source, folder: Path, *, told: Callable[[Path], object] | None = None) -> None:
    """Keep the files in `folder` as fresh as `source`, until cancelled; `told` hears of each new state.

    Raises:
        Unavailable: the disk refuses.
        NoIdentity: the identity was withdrawn; the files were removed before.
    """
    files = SvidFiles(folder)
    async for _ in source.changed():
        try:
            svid = source.svid
        except NoIdentity:
            files.withdraw()
            raise
        bundle = source.bundles.get(svid.id.trust_domain)
        if bundle is None:
            raise Malformed(f"the Workload API gave no bundle for `{svid.id.trust_domain}`")
        written = files.write(svid, bundle)
        if told is not None:
            told(written)


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
