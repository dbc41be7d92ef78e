"""The certificate of a public CA and its key, in files that something else renews: read again when they changed.

Whoever renews them writes two files one after the other. Until both belong together the former pair is shown.
"""

from __future__ import annotations

import stat
from pathlib import Path

from ca.errors import Malformed, Problem
from ca.runtime import log
from ca.tls import TlsMaterial, check_material

_LARGEST = 1024 * 1024
_log = log.get(__name__)


class WebCertificate:
    """One pair of files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._paths = (certificate, key)
        self._mark: object = None
        self._held: TlsMaterial | None = None

    def material(self) -> TlsMaterial:
        """The newest pair that can be used; the same object while nothing changed. Raises Malformed."""
        mark = tuple(_mark(path) for path in self._paths)
        if mark != self._mark:
            try:
                self._held = self._read()
            except Problem as problem:
                if self._held is None:
                    raise
                _log.error("the certificate for the web can't be used, the former one is shown", error=problem)
            self._mark = mark
        assert self._held is not None, "without one it was raised"
        return self._held

    def _read(self) -> TlsMaterial:
        chain, key = (_content(path) for path in self._paths)
        found = TlsMaterial(chain_pem=chain, key_pem=key, anchors_der=())
        check_material(found)
        return found


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(_LARGEST + 1)
    except OSError as error:
        raise Malformed(f"the file `{path}` can't be read: {(error.strerror or 'unknown reason').lower()}") from error
    if len(found) > _LARGEST:
        raise Malformed(f"the file `{path}` is longer than any certificate or key")
    return found if found.endswith(b"\n") else found + b"\n"


def _mark(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode)
