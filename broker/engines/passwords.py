"""Passwords that are made here: 256 random bits that every target, reader and rule takes."""

from __future__ import annotations

import math
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_RANDOM = 43
"""Characters drawn from 62: log2(62^43) = 256 bits."""

_PLACES = (
    string.ascii_letters,
    *[_ALPHABET] * _RANDOM,
    string.ascii_lowercase,
    string.ascii_uppercase,
    string.digits,
)
"""What may stand at each place: it begins with a letter, so no reader takes it for a number, and ends with one of each
class for the rules of targets that want them; those four are on top of the 256 bits."""

_KINDS = math.prod(len(characters) for characters in _PLACES)


def new_password() -> str:
    """256 random bits in characters that mean nothing to a URL, a shell, SQL or YAML; drawn at once, without bias."""
    number, drawn = secrets.randbelow(_KINDS), []
    for characters in _PLACES:
        number, place = divmod(number, len(characters))
        drawn.append(characters[place])
    return "".join(drawn)
