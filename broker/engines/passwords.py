"""Passwords that are made here: 256 random bits that every target, reader and rule takes."""

from __future__ import annotations

import math
import secrets
import string

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
