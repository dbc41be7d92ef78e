"""A sealing key that rests on a PKCS#11 token: what is sealed opens only where that token is.

The token holds a generic secret that may sign and can't be read. At the start it computes one HMAC over a fixed text;
that is the key this process seals with, as it would with one from a file. Who copies disk and settings has nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ca.keys.protocol import KeyUnusable
from ca.keys.token import Session, Token
from ca.seal import AesSeal

_WORDS = b"sojourn sealing key on a token, 1"


async def seal_of(token: Token, label: str) -> AesSeal:
    """The seal under the secret of that label. Raises KeyUnusable, Unavailable."""
    return AesSeal(await token.run(partial(_derive, label)))


def _derive(label: str, session: Session) -> bytes:
    from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

    wanted: dict[Attribute, Any] = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
        Attribute.LABEL: label,
    }
    found = list(session.raw.get_objects(wanted))
    if len(found) != 1:
        raise KeyUnusable(f"there are {len(found)} generic secrets `{label}` on the token: expected one")
    secret = found[0]
    if not secret[Attribute.SENSITIVE] or secret[Attribute.EXTRACTABLE]:
        raise KeyUnusable(f"the secret `{label}` may leave the token: expected a sensitive one that can't be extracted")
    return bytes(secret.sign(_WORDS, mechanism=Mechanism.SHA256_HMAC))
