"""Values that must not be seen, and references to where they are kept.

A `Secret` hides itself by type: it has no repr, no equality that leaks, can't be pickled, copied into JSON or formatted
into a string. Its one way out is `reveal()`, so every place a secret leaves can be found by that word.
A `Reference` is what settings hold instead of a value: `file:/run/secrets/pg` or `env:PGPASSWORD`.
"""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from ca.errors import Malformed

DOTS = "••••"
"""What stands where a secret would."""

_LONGEST = 64 * 1024
_SECRET_NAME = re.compile(
    r"(pass(word|wd|phrase)?|pgpass|secret|token|credential|authorization|cookie|key_der|private_?key|api_?key)s?$",
    re.IGNORECASE,
)


def sounds_secret(name: str) -> bool:
    """Whether what is called `name` is to be hidden whatever its type: the second wall behind `Secret`."""
    return _SECRET_NAME.search(name) is not None


class Secret:
    """A text that is shown to nobody by accident."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The value itself: for the one place that hands it over or uses it."""
        return self.__value

    def matches(self, other: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.__value.encode(), other.encode())

    def __repr__(self) -> str:
        return f"Secret({DOTS})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return DOTS

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other.reveal())

    def __hash__(self) -> int:
        return hash(self.__value)

    def __reduce__(self) -> Never:
        raise TypeError("a Secret is not to be pickled or copied")

    def __getstate__(self) -> Never:
        raise TypeError("a Secret is not to be pickled or copied")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret rests: `file:<absolute path>` or `env:<NAME>`."""

    kind: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `text`.

        Raises:
            Malformed: it is neither `file:` with an absolute path nor `env:` with a name. The text is not repeated:
                whoever wrote a password here by mistake must not find it in a log.
        """
        kind, colon, name = text.partition(":")
        if not colon or not name or kind not in {"file", "env"}:
            raise Malformed("a secret is written as `file:/path` or `env:NAME`, never as the value itself")
        if kind == "file" and not name.startswith("/"):
            raise Malformed("a `file:` reference needs an absolute path")
        return cls(kind, name)

    def read(self) -> Secret:
        """The secret it points at, without the line break editors put at the end of a file.

        Raises:
            Malformed: nothing is there, or it is empty or longer than 64 KiB.
        """
        value = self._environment() if self.kind == "env" else self._file()
        if not value:
            raise Malformed(f"the secret `{self}` is empty")
        return Secret(value)

    def _environment(self) -> str:
        value = os.environb.get(self.name.encode())
        if value is None:
            raise Malformed(f"the environment has no `{self.name}`")
        return self._text(value)

    def _file(self) -> str:
        path = Path(self.name)
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST + 1)
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            raise Malformed(f"can't read the secret file `{path}`: {reason}") from error
        if len(content) > _LONGEST:
            raise Malformed(f"the secret file `{path}` is longer than {_LONGEST} bytes")
        content = content.removesuffix(b"\n")
        return self._text(content.removesuffix(b"\r"))

    def _text(self, content: bytes) -> str:
        """`content` as text; a decoding error would carry the secret in its arguments, so none is chained."""
        text = content.decode(errors="replace")
        if text.encode() != content:
            raise Malformed(f"the secret `{self}` is not UTF-8")
        return text

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"
