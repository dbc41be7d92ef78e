"""Where keys rest and what they are sealed with, as an operator says it: one form for every process that has any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ca.keys import open_key_store
from ca.keys.protocol import KeyStore, Place, Resealing
from ca.keys.token import open_token
from ca.keys.token_seal import seal_of
from ca.runtime.settings import SecretReference, Settings
from ca.seal import AesSeal, Seal, SealRing


class KeySettings(Settings):
    """What such settings may hold; which of it must stand together the process that has them says.

    `seal` names a key outside the store; with `seal_label` it is a secret on the token that `module`, `token` and `pin`
    name. `former_seals` still open what was sealed under them; nothing is sealed under them any more.
    """

    store: Literal["memory", "disk", "pkcs11"] = "memory"
    folder: Path | None = None
    seal: SecretReference | None = None
    seal_label: str | None = None
    former_seals: tuple[SecretReference, ...] = ()
    module: Path | None = None
    token: str | None = None
    pin: SecretReference | None = None

    @property
    def has_token(self) -> bool:
        """Whether a PKCS#11 token is named."""
        return bool(self.module and self.token and self.pin)

    def place(self) -> Place:
        """Where that is; without the seal."""
        return Place(folder=self.folder or Path(), module=self.module, token=self.token or "", pin=self.pin)

    async def open_seal(self) -> Seal | None:
        """What rests is sealed with it; None when no key was named. Raises Malformed, KeyUnusable, Unavailable."""
        seal, place = None, self.place()
        if self.seal is not None:
            seal = AesSeal.from_reference(self.seal)
        elif self.seal_label is not None and place.module is not None and place.pin is not None:
            seal = await seal_of(open_token(place.module, place.token, place.pin), self.seal_label)
        if seal is None or not self.former_seals:
            return seal
        return SealRing(seal, *(AesSeal.from_reference(former) for former in self.former_seals))

    async def open_store(self, seal: Seal | None) -> KeyStore:
        """The key store itself; what rests there under a former seal is sealed anew. Raises Malformed, KeyUnusable."""
        store = open_key_store(self.store, replace(self.place(), seal=seal))
        if self.former_seals and isinstance(store, Resealing):
            await store.reseal()
        return store
