"""Private keys: where they live is a choice made once, by name, in the table below."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

from ca.errors import Malformed
from ca.keys.protocol import KeyStore, Place

KEY_STORES: Mapping[str, str] = MappingProxyType(
    {
        "memory": "ca.keys.memory",
        "disk": "ca.keys.disk",
        "pkcs11": "ca.keys.pkcs11",
    }
)
"""The kinds of key store; each module has `open_store(place)`."""

_Opener = Callable[[Place], KeyStore]


def open_key_store(kind: str, place: Place) -> KeyStore:
    """The key store of that `kind` at `place`.

    Raises:
        Malformed: there is no such kind, or `place` does not say what it needs.
        KeyUnusable: the place is open to others.
    """
    module = KEY_STORES.get(kind)
    if module is None:
        raise Malformed(f"`{kind[:80]}` is not a kind of key store: expected one of `{'`, `'.join(KEY_STORES)}`")
    return cast("_Opener", importlib.import_module(module).open_store)(place)
