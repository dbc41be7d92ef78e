"""Keys in files: one file per key, in a folder nobody else may enter.

The folder is 0700, the files 0600, both owned by this process's user; whatever is wider is refused, not mended:
somebody may have read it already. With a seal the file holds an envelope bound to the key's name and purpose; then a
file that is not sealed is refused as well, or whoever can write the folder could lay a key of their own there.

A file appears whole or not at all (written aside, synced, linked under its name, folder synced) and is never
overwritten, but by the same key under another seal.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.errors import Unavailable
from ca.keys.memory import InMemoryKey
from ca.keys.protocol import KeyExists, KeyNotFound, KeyStore, KeyUnusable, Place, Purpose, SigningKey, check_name
from ca.seal import Seal, SealBroken, sealed_by

_VERSION = 1
_SUFFIX = ".key"
_ASIDE = ".new"
_LONGEST = 16 * 1024


def open_store(place: Place) -> KeyStore:
    """The store in the place's folder, which is made when it is absent. Raises KeyUnusable."""
    return DiskKeyStore(place.folder, place.seal)


class DiskKeyStore:
    """A folder of key files. One process at a time: whoever holds the database that names the keys."""

    durable = True

    def __init__(self, folder: Path, seal: Seal | None) -> None:
        self._folder, self._seal = folder, seal
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeyUnusable(f"can't make the key folder `{folder}`: {error.strerror}") from error
        self._check_folder()
        for leftover in folder.glob(f"*{_ASIDE}"):  # a crash between writing and linking: never used by anybody
            leftover.unlink()

    @property
    def sealed(self) -> bool:
        """Whether a seal is configured."""
        return self._seal is not None

    async def create(self, name: str, purpose: Purpose) -> SigningKey:
        """Make a new key and its file; on disk when this returns. Raises KeyExists, Malformed, Unavailable."""
        check_name(name)
        private = ec.generate_private_key(ec.SECP256R1())
        await asyncio.to_thread(self._write, name, self._encode(name, purpose, private))
        return InMemoryKey(name, purpose, private)

    async def load(self, name: str, purpose: Purpose) -> SigningKey:
        """Read the key `name`. Raises KeyNotFound, KeyUnusable."""
        content = await asyncio.to_thread(self._read, check_name(name))
        return InMemoryKey(name, purpose, self._decode(name, purpose, content))

    async def list(self) -> Sequence[str]:
        """The names, sorted."""
        self._check_folder()
        return sorted(path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}"))

    async def delete(self, name: str) -> None:
        """Remove the file of the key `name`; the folder is synced even if it was absent. Raises Unavailable."""
        await asyncio.to_thread(self._delete, check_name(name))

    async def reseal(self) -> int:
        """Seal anew each file a former key sealed; a crash leaves it whole, under the one key or the other."""
        return sum([await asyncio.to_thread(self._reseal, name) for name in await self.list()])

    def _reseal(self, name: str) -> bool:
        content = self._read(name)
        document = _document(self._path(name), content)
        if self._seal is None or sealed_by(_bytes(self._path(name), document)) == self._seal.key_name:
            return False
        try:
            purpose = Purpose(document["purpose"])
        except ValueError as error:
            raise KeyUnusable(f"the key file `{self._path(name)}` is for an unknown purpose") from error
        private = self._decode(name, purpose, content)
        self._write(name, self._encode(name, purpose, private), instead=True)
        return True

    def _check_folder(self) -> None:
        _check(self._folder, self._folder.lstat(), directory=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _encode(self, name: str, purpose: Purpose, private: ec.EllipticCurvePrivateKey) -> bytes:
        content = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        if self._seal is not None:
            content = self._seal.seal(content, _context(name, purpose))
        document = {
            "version": _VERSION,
            "name": name,
            "purpose": str(purpose),
            "sealed": self.sealed,
            "key": base64.b64encode(content).decode(),
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def _decode(self, name: str, purpose: Purpose, content: bytes) -> ec.EllipticCurvePrivateKey:
        document = _document(self._path(name), content)
        if (document["name"], document["purpose"]) != (name, purpose):
            raise KeyUnusable(
                f"the file `{self._path(name)}` holds the key `{document['name']}` for `{document['purpose']}`,"
                f" not `{name}` for `{purpose}`"
            )
        private = _private(self._path(name), self._unseal(name, purpose, document))
        if not isinstance(private.curve, ec.SECP256R1):
            raise KeyUnusable(
                f"the key file `{self._path(name)}` holds a key of `{private.curve.name}`: expected P-256"
            )
        return private

    def _unseal(self, name: str, purpose: Purpose, document: dict[str, Any]) -> bytes:
        path = self._path(name)
        content = _bytes(path, document)
        if self._seal is None:
            if document["sealed"]:
                raise KeyUnusable(f"the key file `{path}` is sealed and no sealing key is configured")
            return content
        if not document["sealed"]:
            raise KeyUnusable(f"the key file `{path}` is not sealed, but a sealing key is configured")
        try:
            return self._seal.open(content, _context(name, purpose))
        except SealBroken as error:
            raise KeyUnusable(f"can't unseal the key file `{path}`: {error}") from error

    def _read(self, name: str) -> bytes:
        self._check_folder()
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise KeyNotFound(f"there is no key file `{path}`") from error
        except OSError as error:
            raise KeyUnusable(f"can't open the key file `{path}`: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            _check(path, os.fstat(file.fileno()), directory=False)
            return file.read(_LONGEST)

    def _write(self, name: str, content: bytes, *, instead: bool = False) -> None:
        self._check_folder()
        path, aside = self._path(name), self._folder / f"{name}{_ASIDE}"
        try:
            with self._alone():
                try:
                    aside.unlink(missing_ok=True)
                    _write_new(aside, content)
                    if instead:
                        aside.replace(path)
                    else:
                        os.link(aside, path)
                finally:
                    aside.unlink(missing_ok=True)
                self._sync()
        except FileExistsError as error:
            raise KeyExists(f"there is a key file `{path}` already") from error
        except OSError as error:
            raise Unavailable(f"can't write the key file `{path}`: {error.strerror}") from error

    def _delete(self, name: str) -> None:
        self._check_folder()
        try:
            self._path(name).unlink(missing_ok=True)
            self._sync()
        except OSError as error:
            raise Unavailable(f"can't remove the key file `{self._path(name)}`: {error.strerror}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes in the folder meanwhile: two who make one key would link each other's draft."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _context(name: str, purpose: Purpose) -> bytes:
    return b"\x00".join((b"sojourn key", name.encode(), purpose.encode()))


def _check(path: Path, status: os.stat_result, *, directory: bool) -> None:
    """Refuse what is not ours alone."""
    expected = 0o700 if directory else 0o600
    if not (stat.S_ISDIR(status.st_mode) if directory else stat.S_ISREG(status.st_mode)):
        raise KeyUnusable(f"`{path}` is not a {'folder' if directory else 'regular file'}")
    if status.st_uid != os.geteuid():
        raise KeyUnusable(f"`{path}` belongs to the user `{status.st_uid}`: expected `{os.geteuid()}`")
    # A folder takes the bit setgid from the one it was made in, as on a volume of a pod; it lets nobody in.
    held = stat.S_IMODE(status.st_mode) & ~(stat.S_ISGID if directory else 0)
    if held & ~expected:
        raise KeyUnusable(f"`{path}` has the mode `{stat.S_IMODE(status.st_mode):04o}`: expected `{expected:04o}`")


def _document(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON of a key file, with every member of the type it must have."""
    types = {"version": int, "name": str, "purpose": str, "sealed": bool, "key": str}
    try:
        document = json.loads(content)
    except ValueError as error:
        raise KeyUnusable(f"the key file `{path}` is damaged: it is not JSON") from error
    if not isinstance(document, dict) or any(type(document.get(key)) is not kind for key, kind in types.items()):
        raise KeyUnusable(f"the key file `{path}` is damaged: expected the members `{'`, `'.join(types)}`")
    if document["version"] != _VERSION:
        raise KeyUnusable(f"the key file `{path}` has the version `{document['version']}`: expected `{_VERSION}`")
    return document


def _bytes(path: Path, document: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(document["key"], validate=True)
    except binascii.Error as error:
        raise KeyUnusable(f"the key file `{path}` is damaged: `key` is not base64") from error


def _private(path: Path, content: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_der_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"the key file `{path}` is damaged: it holds no private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyUnusable(f"the key file `{path}` holds no elliptic-curve key")
    return key
