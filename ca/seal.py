"""What must rest is sealed: AES-256-GCM under a key that is kept outside the store.

An envelope is `SJ`, a version, the first eight bytes of a hash that names the key, a nonce, and the ciphertext. The
header and the *context* are authenticated with it: an envelope opens only where it was made for, so a sealed value that
is copied under another name or used for another purpose is refused like a forged one.

The key is 32 random bytes, written raw, as hex or as base64 in a file or a variable. A passphrase is refused: nothing
here would stretch it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import stat
import string
from pathlib import Path
from typing import Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ca.errors import Malformed, Problem
from ca.runtime.secret import Reference

KEY_BYTES = 32

_MAGIC = b"SJ\x01"
_NAME_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _NAME_BYTES
_LONGEST_KEY_FILE = 1024
_PRINTABLE = frozenset(string.printable.encode())


class SealBroken(Problem):
    """A sealed value can't be opened: another key, another context, or not what was sealed."""

    code = "seal-broken"


class Seal(Protocol):
    """Something that can seal and open."""

    @property
    def key_name(self) -> str:
        """Names the key without telling it: what an operator compares."""

    def seal(self, content: bytes, context: bytes) -> bytes:
        """Seal `content` so that it opens only with the same `context`."""

    def open(self, envelope: bytes, context: bytes) -> bytes:
        """The content of `envelope`. Raises SealBroken."""


class AesSeal:
    """A seal under one AES-256 key."""

    __slots__ = ("__cipher", "__name")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise Malformed(f"a sealing key has {len(key)} bytes: expected {KEY_BYTES}")
        self.__cipher = AESGCM(key)
        self.__name = hashlib.sha256(b"sojourn sealing key\x00" + key).digest()[:_NAME_BYTES]

    @classmethod
    def from_reference(cls, reference: Reference) -> Self:
        """The seal whose key rests at `reference`; a systemd credential is a `file:` below $CREDENTIALS_DIRECTORY.

        Raises:
            Malformed: nothing is there, others may read or change it, or it is no key. The content is not repeated.
        """
        content = _read_file(Path(reference.name)) if reference.kind == "file" else reference.read().reveal().encode()
        key = _decode(content)
        if key is None:
            raise Malformed(f"the sealing key `{reference}` is not {KEY_BYTES} random bytes, raw, in hex or in base64")
        return cls(key)

    @property
    def key_name(self) -> str:
        """Sixteen hexadecimal digits."""
        return self.__name.hex()

    def seal(self, content: bytes, context: bytes) -> bytes:
        """Seal under a fresh nonce."""
        header, nonce = _MAGIC + self.__name, secrets.token_bytes(_NONCE_BYTES)
        return header + nonce + self.__cipher.encrypt(nonce, content, header + context)

    def open(self, envelope: bytes, context: bytes) -> bytes:
        """Open what `seal` gave for the same context.

        Raises:
            SealBroken: cut short, of another version, sealed under another key, for another context, or changed.
        """
        header, rest = envelope[:_HEADER_BYTES], envelope[_HEADER_BYTES:]
        if len(rest) < _NONCE_BYTES + _TAG_BYTES or not header.startswith(_MAGIC):
            raise SealBroken("this is not a sealed value of a version known here")
        sealed_by = header[len(_MAGIC) :]
        if sealed_by != self.__name:
            raise SealBroken(f"sealed under the key `{sealed_by.hex()}`, but the key configured is `{self.key_name}`")
        try:
            return self.__cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header + context)
        except InvalidTag as error:
            raise SealBroken("the sealed value was changed, or was sealed for another use") from error

    def __repr__(self) -> str:
        return f"AesSeal({self.key_name})"


class SealRing:
    """A seal whose key was replaced: it seals under the newest, and opens what any of the former sealed."""

    __slots__ = ("__newest", "__seals")

    def __init__(self, newest: Seal, *former: Seal) -> None:
        self.__newest = newest
        self.__seals = {seal.key_name: seal for seal in (*former, newest)}

    @property
    def key_name(self) -> str:
        """That of the newest."""
        return self.__newest.key_name

    def seal(self, content: bytes, context: bytes) -> bytes:
        """Seal under the newest key."""
        return self.__newest.seal(content, context)

    def open(self, envelope: bytes, context: bytes) -> bytes:
        """Open under the key that sealed it. Raises SealBroken."""
        return self.__seals.get(sealed_by(envelope) or "", self.__newest).open(envelope, context)

    def __repr__(self) -> str:
        return f"SealRing({', '.join(self.__seals)})"


def sealed_by(envelope: bytes) -> str | None:
    """The name of the key an envelope says it was sealed under; None when it is none. Nothing is verified."""
    if len(envelope) < _HEADER_BYTES or not envelope.startswith(_MAGIC):
        return None
    return envelope[len(_MAGIC) : _HEADER_BYTES].hex()


def _read_file(path: Path) -> bytes:
    """A key file: only its owner may change it, and nobody outside its group may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LONGEST_KEY_FILE)
    except OSError as error:
        raise Malformed(f"can't read the sealing key `{path}`: {error.strerror}") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise Malformed(f"the sealing key `{path}` has the mode `{mode:04o}`: expected `0600`, `0400` or `0440`")
    return content


def _decode(content: bytes) -> bytes | None:
    """The key in one of its three spellings, or None."""
    if len(content) == KEY_BYTES and not _PRINTABLE.issuperset(content):
        return content
    text = content.strip()
    if len(text) == 2 * KEY_BYTES:
        try:
            return bytes.fromhex(text.decode("ascii"))
        except ValueError:
            return None
    try:
        key = base64.b64decode(
            text.rstrip(b"=") + b"=", altchars=b"-_" if set(text) & set(b"-_") else None, validate=True
        )
    except binascii.Error:
        return None
    return key if len(key) == KEY_BYTES else None
