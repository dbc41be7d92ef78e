"""PEM files that change all at once, for programs that know nothing but files.

    <folder>/current -> .svid-9f31…/
        svid.pem      the chain, the leaf first
        key.pem       its key
        combined.pem  the key first, then the chain: one file, so that no reader has the one without the other
        bundle.pem    the authorities of its own trust domain
        …             what else is wanted (`Wanted`): federated bundles, revocation lists, tokens

All files of one state lie in a folder of their own and one link is swapped, so a reader of `combined.pem`, or one that
opens the files through the link's target, never sees a key beside another's certificate. The folder before is kept for
readers that have it open; older ones are removed. When the identity is withdrawn the link is removed first and then
every key. A disk that loses power shows the old state or the new one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.errors import Malformed, Unavailable
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Svid

CURRENT = "current"

_PREFIX = ".svid-"
_LONGEST = 200
"""Characters of a trust domain that has a file of its own; a longer name fits no file's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """Who may read: `public` is for certificates and bundles, `private` for whatever holds a key or a token.

    `group` is the number of a group all files are given to. Nobody but the owner may write.
    """

    public: int = 0o600
    private: int = 0o600
    group: int | None = None

    def __post_init__(self) -> None:
        if self.public & ~0o644 or self.private & ~0o640 or not self.public & self.private & 0o400:
            raise Malformed("expected modes up to 0644 for certificates and up to 0640 for keys and tokens")

    @property
    def folder(self) -> int:
        """Whoever may read a file may enter its folder."""
        read = self.public | self.private
        return 0o700 | (read & 0o044) | ((read & 0o044) >> 2)


@dataclass(frozen=True, slots=True)
class File:
    """What one file holds; `private` when it is not for everybody."""

    content: bytes
    private: bool = False


def pem_files(svid: X509Svid, bundle: Bundle) -> dict[str, File]:
    """What is always written."""
    chain, key = svid.chain_pem(), svid.key_pem()
    return {
        "svid.pem": File(chain),
        "key.pem": File(key, private=True),
        "combined.pem": File(key + chain, private=True),
        "bundle.pem": File(_pem(bundle.x509_authorities)),
    }


def federated_files(bundles: BundleSet) -> dict[str, File]:
    """A file for each trust domain, and `bundles.pem` with all of them.

    A program that is given `bundles.pem` believes every authority in it any name, whatever its domain.
    """
    pems = {each.trust_domain.name: _pem(each.x509_authorities) for each in bundles}
    found = {f"bundle.{name}.pem": File(pem) for name, pem in pems.items() if len(name) <= _LONGEST}
    return {**found, "bundles.pem": File(b"".join(pem for _, pem in sorted(pems.items())))}


def revocation_files(lists: RevocationLists) -> dict[str, File]:
    """`crl.pem` with every list that was told, for programs that look at lists; none is written where none was told."""
    content = b"".join(x509.load_der_x509_crl(each.der).public_bytes(Encoding.PEM) for each in lists)
    return {"crl.pem": File(content)} if content else {}


class SvidFiles:
    """The files in `folder`, which is made if need be and belongs to this alone."""

    def __init__(self, folder: Path, modes: Modes | None = None) -> None:
        """Make the folder; one that is there keeps its mode.

        Raises:
            Malformed: it is there and others may write in it.
            Unavailable: it can't be made, or not be given to the group.
        """
        self._folder, self._modes = folder, modes or Modes()
        try:
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True)
                self._open_up(folder, self._modes.folder)
            status = folder.stat()
        except OSError as error:
            raise Unavailable(f"can't make the folder `{folder}`: {error.strerror}") from error
        if not folder.is_dir() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise Malformed(f"`{folder}` must be a folder of this user and writable by nobody else")

    @property
    def current(self) -> Path:
        """The link to the newest state."""
        return self._folder / CURRENT

    def write(self, svid: X509Svid, bundle: Bundle) -> Path:
        """Put what is always written in place, as `put` does."""
        return self.put(pem_files(svid, bundle))

    def put(self, files: Mapping[str, File]) -> Path:
        """Put a new state in place and answer its folder. Raises Unavailable when the disk refuses."""
        state = self._folder / f"{_PREFIX}{secrets.token_hex(8)}"
        try:
            state.mkdir(mode=0o700)
            for name, file in files.items():
                self._write(state / name, file)
            self._open_up(state, self._modes.folder)
            _sync(state)
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

    def _write(self, path: Path, file: File) -> None:
        mode = self._modes.private if file.private else self._modes.public
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb") as writing:  # noqa: PTH123
            writing.write(file.content)
            writing.flush()
            self._open_up(path, mode)
            os.fsync(writing.fileno())

    def _open_up(self, path: Path, mode: int) -> None:
        """To whom it is for: the group first, so that no other group has it for a moment."""
        if self._modes.group is not None:
            os.chown(path, -1, self._modes.group)
        path.chmod(mode)

    def _target(self) -> str | None:
        try:
            return self.current.readlink().name
        except OSError:
            return None

    def _swap(self, name: str) -> None:
        link = self._folder / f"{_PREFIX}link-{secrets.token_hex(4)}"
        link.symlink_to(name)
        link.replace(self.current)
        _sync(self._folder)

    def _sweep(self, keep: set[str | None]) -> None:
        for path in self._folder.glob(f"{_PREFIX}*"):
            if path.name in keep:
                continue
            if path.is_symlink():
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
