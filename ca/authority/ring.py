"""The authorities of one trust domain together with the keys of this server, as the store and the key store hold them.

Several servers may stand over one store. Each has authorities of its own and signs with no other; the bundle shows
those of all. What is read often (the active one of a kind, the bundle) is kept in memory and read again after every
change, of this server or (`reload`) of another; changes are compare-and-swap in the store and begin by taking the
bundle's row, so a ring that is behind is refused and never overwrites.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Self

from cryptography.x509 import Certificate

from ca import store
from ca.authority.purposes import PURPOSES
from ca.authority.settings import AuthoritySettings, name_warnings
from ca.authority.shown import bundle_of, key_id_of, spki, spki_of, store_warnings, subject
from ca.authority.upstream import Upstream
from ca.errors import Conflict, Problem, Stale, Unavailable
from ca.keys.protocol import KeyNotFound, KeyStore, KeyUnusable, SigningKey
from ca.profiles.prepared import Issuer, Kind
from ca.runtime.database import Database, Transaction, Unit
from ca.spiffe.bundle import Bundle
from ca.store import Anchor, Move, State, StoredAuthority


class KeyLost(Problem):
    """A key that ought to be in a durable store is not there; going on would begin another root in silence."""

    code = "key-lost"


class NameTaken(Conflict):
    """Another process serves under this server's name; whoever took it last has it, and the other one ends."""

    code = "name-taken"


class Ring:
    """Loaded by `Ring.load`."""

    def __init__(
        self, settings: AuthoritySettings, database: Database, key_store: KeyStore, upstream: Upstream | None = None
    ) -> None:
        self.settings, self.upstream = settings, upstream
        self.database, self.key_store = database, key_store
        self.bundle = Bundle(trust_domain=settings.trust_domain, refresh_hint=settings.refresh_hint)
        self.warnings = [*name_warnings(settings.trust_domain), *store_warnings(key_store)]
        self.anchors: tuple[Anchor, ...] = ()
        self.run = secrets.token_hex(8)
        self._generation = -1
        self._authorities: dict[bytes, StoredAuthority] = {}
        self._keys: dict[bytes, SigningKey] = {}
        self._subscribers: list[Callable[[], object]] = []

    @classmethod
    async def load(
        cls, settings: AuthoritySettings, database: Database, key_store: KeyStore, upstream: Upstream | None = None
    ) -> Self:
        """Read what is there; nothing is made.

        Raises:
            Conflict: the store is another trust domain's.
            KeyLost, KeyUnusable: a key that must be there is not, or is not the one it was.
        """
        ring = cls(settings, database, key_store, upstream)

        async def claim(tx: Transaction) -> None:
            await store.claim(tx, settings.trust_domain)
            await store.take_name(tx, settings.server, ring.run)

        await database.write(claim, ending=True)
        await ring.clear_intents()
        await ring._read()
        await ring._load_keys()
        return ring

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def authorities(self) -> tuple[StoredAuthority, ...]:
        """Every authority of any server that is neither revoked nor retired, the oldest first."""
        return tuple(self._authorities.values())

    @property
    def generation(self) -> int:
        """The number of the last change, of any server, that this ring knows."""
        return self._generation

    @property
    def own(self) -> tuple[StoredAuthority, ...]:
        """Those of this server: it moves no others by itself, and has no other keys."""
        return tuple(each for each in self._authorities.values() if each.server == self.settings.server)

    @property
    def anchor_key_ids(self) -> frozenset[bytes]:
        """Subject key identifiers of the roots that are kept elsewhere."""
        return frozenset(key_id_of(each.certificate) for each in self.anchors)

    def shows(self, root: Certificate) -> bool:
        """Whether peers are told of this root."""
        return root in self.bundle.x509_authorities

    def anchor_keys(self, key_id: bytes) -> list[bytes]:
        """The public keys of the roots that are kept elsewhere and have this identifier, each in DER."""
        return [spki_of(each.certificate) for each in self.anchors if key_id_of(each.certificate) == key_id]

    def get(self, key_id: bytes) -> StoredAuthority | None:
        """The authority of this key, unless it is revoked or retired."""
        return self._authorities.get(key_id)

    def active(self, kind: Kind) -> StoredAuthority | None:
        """The one of this server that signs."""
        return self._in(kind, State.ACTIVE)

    def prepared(self, kind: Kind) -> StoredAuthority | None:
        """The one of this server that will sign next."""
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
            subject=b"" if authority.certificate is None else subject(authority.certificate),
            organisation=self.settings.organisation,
            country=self.settings.country,
            jwt_issuer=self.settings.jwt_issuer,
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

    async def clear_intents(self) -> None:
        """Destroy the keys this server began to make and did not finish: a crash, or a root that did not answer."""
        server = self.settings.server
        for name in await self.database.read(partial(store.intended_keys, server=server)):
            await self.key_store.delete(name)
            await self.database.write(partial(store.forget_intent, key_name=name), ending=True)

    async def set_anchors(self, certificates: Collection[bytes], now: datetime) -> None:
        """Have the bundle show these roots because of this server; those it needs no longer, not because of it."""
        own = [each for each in self.anchors if each.server == self.settings.server]
        known = {each.certificate for each in own}
        new = [
            Anchor(server=self.settings.server, certificate=each, published_at=now)
            for each in certificates
            if each not in known
        ]
        old = [each for each in own if each.certificate not in certificates]
        if not new and not old:
            return

        async def unit(tx: Transaction) -> None:
            for each in new:
                await store.add_anchor(tx, each)
            for each in old:
                await store.remove_anchor(tx, each)

        await self._change(unit, now, ending=not new)

    async def drop_anchors(self, gone: Collection[str], now: datetime) -> None:
        """Show no root for the sake of a server that is gone and of which nothing is believed any more."""
        servers = {each.server for each in self._authorities.values()}
        left = [each for each in self.anchors if each.server in gone and each.server not in servers]
        if not left:
            return

        async def unit(tx: Transaction) -> None:
            for each in left:
                await store.remove_anchor(tx, each)

        await self._change(unit, now, ending=True)

    async def move(
        self, steps: Sequence[Move], now: datetime, *, only_if: Unit[bool] | None = None, ending: bool = False
    ) -> None:
        """Change states in one transaction, in the order given; with `ending` it goes on with a full disk.

        Raises:
            Stale: an authority was not in the state it was believed to be in, or `only_if` no longer holds.
        """

        async def unit(tx: Transaction) -> None:
            if only_if is not None and not await only_if(tx):
                raise Stale("another server changed the authorities meanwhile")
            for step in steps:
                await store.move(tx, step, now)

        await self._change(unit, now, ending=ending or all(step.after is not State.ACTIVE for step in steps))

    async def force(self, authority: StoredAuthority, now: datetime) -> None:
        """Have a prepared one sign as soon as peers were told long enough. Raises Stale."""
        await self._change(partial(store.force, key_id=authority.key_id), now)

    async def destroy_keys(self, now: datetime) -> None:
        """Destroy this server's keys of revoked and retired authorities, until the store knows that each is gone."""
        for name in await self.database.read(partial(store.keys_to_destroy, server=self.settings.server)):
            await self.key_store.delete(name)
            await self.database.write(partial(store.key_destroyed, key_name=name, now=now), ending=True)

    async def reload(self, now: datetime) -> bool:
        """Notice what other servers committed, and say that this one has; cheap when they did nothing.

        Answers whether anything changed; subscribers have then been called.

        Raises:
            NameTaken: another process has this server's name.
        """

        async def unit(tx: Transaction) -> tuple[int, str | None]:
            return await store.generation(tx), await store.who_has(tx, self.settings.server)

        generation, run = await self.database.read(unit)
        if run != self.run:
            raise NameTaken(
                f"another process has the name `{self.settings.server}` now:"
                " give each server over a store its own `name`"
            )
        changed = generation != self._generation
        if changed:
            await self._read()
            self._tell()
        if any(each.server != self.settings.server for each in self._authorities.values()):
            # whoever is alone has nobody to tell, and leaves the disk in peace
            told = partial(store.heard, server=self.settings.server, generation=self._generation, now=now)
            await self.database.write(told)
        return changed

    async def _change(self, unit: Unit[None], now: datetime, *, ending: bool = False) -> None:
        async def with_sequence(tx: Transaction) -> None:
            await store.touch(tx)
            await unit(tx)
            await store.raise_sequence(tx, now)

        await self.database.write(with_sequence, ending=ending)
        await self._read()
        self._tell()

    def _tell(self) -> None:
        for callback in tuple(self._subscribers):
            callback()

    async def _read(self) -> None:
        async def unit(tx: Transaction) -> tuple[int, int, Sequence[StoredAuthority], Sequence[Anchor]]:
            return (
                await store.generation(tx),
                await store.sequence(tx),
                await store.trusted(tx),
                await store.anchors(tx),
            )

        generation, sequence, authorities, anchors = await self.database.read(unit)
        if generation < self._generation:  # two readers overtook one another
            return
        self._generation, self.anchors = generation, tuple(anchors)
        before, self._authorities = self._authorities, {each.key_id: each for each in authorities}
        for key_id in before.keys() - self._authorities.keys():
            self._keys.pop(key_id, None)
        self.bundle = bundle_of(self.settings, authorities, anchors, sequence)

    async def _load_keys(self) -> None:
        lost = []
        for authority in self.own:
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
                f"the key `{needed[0].key_name}` of `{self.settings.server}` is missing: restore the key store,"
                f" or remove the authority's database to begin the trust domain anew"
            )
        if needed:
            self.warnings.append(
                "the keys of the last run were in memory and are gone: there are new ones, the old certificates stay"
                " in the bundle until all they signed has expired, and nodes that pinned the old root must join again"
            )

    def _in(self, kind: Kind, state: State) -> StoredAuthority | None:
        found = [each for each in self.own if each.kind is kind and each.state is state]
        return found[0] if found else None
