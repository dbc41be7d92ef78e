"""The authorities of one trust domain together with their keys, as the store and the key store hold them.

What is read often (the active one of a kind, the bundle) is kept in memory and read again after every change; changes
are compare-and-swap in the store, so a ring that is behind is refused and never overwrites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Self, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ca import store
from ca.authority.settings import AuthoritySettings, name_warnings
from ca.errors import Problem, Unavailable
from ca.keys.protocol import KeyNotFound, KeyStore, KeyUnusable, Purpose, SigningKey
from ca.profiles import jwt
from ca.profiles.prepared import Issuer, Kind
from ca.runtime.database import Database, Transaction, Unit
from ca.spiffe.bundle import Bundle, PublicKey
from ca.store import Move, State, StoredAuthority

PURPOSES: Mapping[Kind, Purpose] = MappingProxyType(
    {
        Kind.ROOT: Purpose.SPIFFE_ROOT,
        Kind.ISSUING: Purpose.SPIFFE_X509,
        Kind.JWT: Purpose.SPIFFE_JWT,
    }
)
"""The kinds of authority, a signer before what it signs."""


class KeyLost(Problem):
    """A key that ought to be in a durable store is not there; going on would begin another root in silence."""

    code = "key-lost"


class Ring:
    """Loaded by `Ring.load`."""

    def __init__(self, settings: AuthoritySettings, database: Database, key_store: KeyStore) -> None:
        self.settings = settings
        self.database, self.key_store = database, key_store
        self.bundle = Bundle(trust_domain=settings.trust_domain, refresh_hint=settings.refresh_hint)
        self.warnings = [*name_warnings(settings.trust_domain), *_store_warnings(key_store)]
        self._authorities: dict[bytes, StoredAuthority] = {}
        self._keys: dict[bytes, SigningKey] = {}
        self._subscribers: list[Callable[[], object]] = []

    @classmethod
    async def load(cls, settings: AuthoritySettings, database: Database, key_store: KeyStore) -> Self:
        """Read what is there; nothing is made.

        Raises:
            Conflict: the store is another trust domain's.
            KeyLost, KeyUnusable: a key that must be there is not, or is not the one it was.
        """
        ring = cls(settings, database, key_store)

        async def claim(tx: Transaction) -> Sequence[str]:
            await store.claim(tx, settings.trust_domain)
            return await store.intended_keys(tx)

        for name in await database.write(claim, ending=True):  # a crash while an authority was being made
            await key_store.delete(name)
            await database.write(partial(store.forget_intent, key_name=name), ending=True)
        await ring._reload()
        await ring._load_keys()
        return ring

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def authorities(self) -> tuple[StoredAuthority, ...]:
        """Every authority that is neither revoked nor retired, the oldest first."""
        return tuple(self._authorities.values())

    def get(self, key_id: bytes) -> StoredAuthority | None:
        """The authority of this key, unless it is revoked or retired."""
        return self._authorities.get(key_id)

    def active(self, kind: Kind) -> StoredAuthority | None:
        """The one that signs."""
        return self._in(kind, State.ACTIVE)

    def prepared(self, kind: Kind) -> StoredAuthority | None:
        """The one that will sign next."""
        return self._in(kind, State.PREPARED)

    def signer(self, kind: Kind, now: datetime) -> StoredAuthority:
        """The one that signs, valid at `now` and with its key. Raises Unavailable."""
        authority = self.active(kind)
        if authority is None or not self.has_key(authority) or not authority.not_before <= now < authority.not_after:
            trust_domain = self.settings.trust_domain
            raise Unavailable(f"the trust domain `{trust_domain}` has no valid authority of the kind `{kind}` now")
        return authority

    def has_key(self, authority: StoredAuthority) -> bool:
        """Whether its private key is there."""
        return authority.key_id in self._keys

    def key(self, authority: StoredAuthority) -> SigningKey:
        """Its private key: for `ca.authority` alone."""
        return self._keys[authority.key_id]

    def issuer(self, authority: StoredAuthority) -> Issuer:
        """What a profile must know of it."""
        return Issuer(
            trust_domain=self.settings.trust_domain,
            key_id=authority.key_id,
            not_before=authority.not_before,
            not_after=authority.not_after,
            subject=b"" if authority.certificate is None else _subject(authority.certificate),
            organisation=self.settings.organisation,
            country=self.settings.country,
        )

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after every change; what is returned ends that."""
        self._subscribers.append(callback)

        def end() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return end

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def add(self, authority: StoredAuthority, key: SigningKey, now: datetime) -> None:
        """Add a new authority, whose key was made under an intent."""
        self._keys[authority.key_id] = key
        await self._change(partial(store.insert, authority=authority, now=now), now)

    async def move(self, steps: Sequence[Move], now: datetime) -> None:
        """Change states in one transaction, in the order given; taking trust away goes on with a full disk.

        Raises:
            Stale: an authority was not in the state it was believed to be in.
        """

        async def unit(tx: Transaction) -> None:
            for step in steps:
                await store.move(tx, step, now)

        await self._change(unit, now, ending=all(step.after is not State.ACTIVE for step in steps))

    async def destroy_keys(self, now: datetime) -> None:
        """Destroy the keys of revoked and retired authorities; repeated until the store knows that each is gone."""
        for name in await self.database.read(store.keys_to_destroy):
            await self.key_store.delete(name)
            await self.database.write(partial(store.key_destroyed, key_name=name, now=now), ending=True)

    async def _change(self, unit: Unit[None], now: datetime, *, ending: bool = False) -> None:
        async def with_sequence(tx: Transaction) -> None:
            await unit(tx)
            await store.raise_sequence(tx, now)

        await self.database.write(with_sequence, ending=ending)
        await self._reload()
        for callback in tuple(self._subscribers):
            callback()

    async def _reload(self) -> None:
        async def unit(tx: Transaction) -> tuple[Sequence[StoredAuthority], int]:
            return await store.trusted(tx), await store.sequence(tx)

        authorities, sequence = await self.database.read(unit)
        self._authorities = {each.key_id: each for each in authorities}
        self._keys = {key_id: key for key_id, key in self._keys.items() if key_id in self._authorities}
        self.bundle = _bundle(self.settings, authorities, sequence)

    async def _load_keys(self) -> None:
        lost = []
        for authority in self._authorities.values():
            try:
                key = await self.key_store.load(authority.key_name, PURPOSES[authority.kind])
            except KeyNotFound:
                lost.append(authority)
                continue
            if spki(key) != authority.public_key:
                raise KeyUnusable(f"the key `{authority.key_name}` is not the one its authority was made with")
            self._keys[authority.key_id] = key
        needed = [each for each in lost if each.state in {State.PREPARED, State.ACTIVE}]
        if needed and self.key_store.durable:
            raise KeyLost(
                f"the key `{needed[0].key_name}` is missing: restore the key store,"
                f" or remove the authority's database to begin the trust domain anew"
            )
        if needed:
            self.warnings.append(
                "the keys of the last run were in memory and are gone: there are new ones, the old certificates stay"
                " in the bundle until all they signed has expired, and nodes that pinned the old root must join again"
            )

    def _in(self, kind: Kind, state: State) -> StoredAuthority | None:
        found = [each for each in self._authorities.values() if each.kind is kind and each.state is state]
        return found[0] if found else None


@lru_cache(maxsize=16)
def _subject(certificate: bytes) -> bytes:
    """The subject in DER; it is asked for once for each leaf, and is always the same."""
    return x509.load_der_x509_certificate(certificate).subject.public_bytes()


def _bundle(settings: AuthoritySettings, authorities: Sequence[StoredAuthority], sequence: int) -> Bundle:
    members = [each for each in authorities if each.in_bundle]
    return Bundle(
        trust_domain=settings.trust_domain,
        x509_authorities=tuple(
            x509.load_der_x509_certificate(each.certificate) for each in members if each.certificate is not None
        ),
        jwt_authorities={
            jwt.kid(each.key_id): cast("PublicKey", serialization.load_der_public_key(each.public_key))
            for each in members
            if each.kind is Kind.JWT
        },
        sequence=sequence,
        refresh_hint=settings.refresh_hint,
    )


def spki(key: SigningKey) -> bytes:
    """Its public half as a SubjectPublicKeyInfo in DER."""
    return key.public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _store_warnings(key_store: KeyStore) -> tuple[str, ...]:
    """What the choice of a key store means."""
    if not key_store.durable:
        return ("the authority's keys are in memory: after a restart there is a new root and every node joins again",)
    if not key_store.sealed:
        return ("the authority's keys rest unsealed, in files only this user may read: configure a sealing key",)
    return ()
