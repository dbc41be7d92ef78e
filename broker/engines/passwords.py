"""Passwords made here, of 256 random bits that every target, reader and rule takes; and the one we use ourselves."""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Callable

from ca.runtime.secret import Secret

_ALPHABET = string.ascii_letters + string.digits
_RANDOM = 43
"""Characters drawn from 62: log2(62^43) = 256 bits."""

_FAIR = 256 - 256 % len(_ALPHABET)
"""Random bytes from here on are thrown away: with them some characters would come more often than others."""

_UNFAIR = bytes(range(_FAIR, 256))
_CHARACTER = bytes(ord(_ALPHABET[byte % len(_ALPHABET)]) for byte in range(256))
_AT_ONCE = 64
_AROUND = (string.ascii_letters, string.ascii_lowercase, string.ascii_uppercase, string.digits)
_WAYS = math.prod(len(characters) for characters in _AROUND)


def new_password() -> str:
    """256 random bits in characters that mean nothing to a URL, a shell, SQL or YAML, drawn without bias.

    It begins with a letter, so no reader takes it for a number, and ends with one of each class for the rules of
    targets that want them; those four are on top of the 256 bits.
    """
    drawn = b""
    while len(drawn) < _RANDOM:
        drawn = secrets.token_bytes(_AT_ONCE).translate(_CHARACTER, _UNFAIR)
    number, around = secrets.randbelow(_WAYS), []
    for characters in _AROUND:
        number, place = divmod(number, len(characters))
        around.append(characters[place])
    return f"{around[0]}{drawn[:_RANDOM].decode()}{''.join(around[1:])}"


class OwnPassword:
    """The password we log in to a target with ourselves: what the settings name, until a rotation put in another."""

    __slots__ = ("_named", "_newer")

    def __init__(self, named: Callable[[], Secret]) -> None:
        self._named = named
        self._newer: Secret | None = None

    def read(self) -> Secret:
        """The one in force. Raises BadSettings: what the settings name can't be read."""
        return self._newer or self._named()

    def become(self, password: Secret | None) -> None:
        """Another one from now on; None: what the settings name."""
        self._newer = password
