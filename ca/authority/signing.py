"""Signing: a `Prepared` is linted, recorded and only then signed, by the active authority of its kind.

There is no other way to a signature, and nothing else to be signed: `ca.profiles` alone makes a `Prepared`, every rule
of `ca.lint` is run on it, and before the signature exists its serial is durable in `ca_issued`, by a unit that began by
finding the authority still active.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime

from ca import lint, store
from ca.authority.ring import Ring
from ca.authority.settings import AuthoritySettings
from ca.errors import Stale, Unavailable
from ca.profiles import jwt
from ca.profiles.prepared import Issuer, Kind, Prepared
from ca.profiles.template import certificate
from ca.runtime.clock import Clock
from ca.runtime.database import Transaction, Unit
from ca.spiffe.bundle import Bundle
from ca.spiffe.id import TrustDomain
from ca.store import Anchor, Issued, State, StoredAuthority


class Authority:
    """One trust domain's signer. Opened by `ca.rotation.open_authority`."""

    def __init__(self, ring: Ring, clock: Clock) -> None:
        self._ring, self._clock = ring, clock

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain whose authority this is."""
        return self._ring.settings.trust_domain

    @property
    def settings(self) -> AuthoritySettings:
        """Lives and names."""
        return self._ring.settings

    @property
    def ring(self) -> Ring:
        """The authorities themselves: for `ca.rotation`, and for showing them."""
        return self._ring

    @property
    def generation(self) -> int:
        """Grows with every change of an authority of any server."""
        return self._ring.generation

    @property
    def believed(self) -> Sequence[StoredAuthority]:
        """Every authority of any server that is neither revoked nor retired, the oldest first."""
        return self._ring.authorities

    @property
    def anchors(self) -> Sequence[Anchor]:
        """The roots whose keys are kept elsewhere."""
        return self._ring.anchors

    def holds(self, authority: StoredAuthority) -> bool:
        """Whether this server has its key."""
        return self._ring.has_key(authority)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should read once at the start, one sentence each."""
        return tuple(self._ring.warnings)

    def issuer(self, now: datetime) -> Issuer:
        """The issuing authority that signs leaves at `now`. Raises Unavailable."""
        return self._ring.issuer(self._ring.signer(Kind.ISSUING, now))

    def jwt_issuer(self, now: datetime) -> Issuer:
        """The key that signs tokens at `now`. Raises Unavailable."""
        return self._ring.issuer(self._ring.signer(Kind.JWT, now))

    def wit_issuer(self, now: datetime) -> Issuer:
        """The key that signs WIT-SVIDs at `now`. Raises Unavailable."""
        return self._ring.issuer(self._ring.signer(Kind.WIT, now))

    def signs(self, now: datetime) -> bool:
        """Whether leaves can be signed at `now`; not while peers of other servers are told of this one's keys."""
        try:
            self.issuer(now)
        except Unavailable:
            return False
        return True

    def list_issuers(self) -> Sequence[StoredAuthority]:
        """The authorities of this server that sign certificates: in any state, as long as the key is there."""
        return [each for each in self._ring.own if each.certificate is not None and self._ring.has_key(each)]

    def bundle(self, now: datetime) -> Bundle:
        """What peers have to trust.

        Raises:
            Unavailable: no root in it is valid at `now`; rotation must have stood still for very long.
        """
        bundle = self._ring.bundle
        if all(root.not_valid_after_utc <= now for root in bundle.x509_authorities):
            raise Unavailable(f"the trust domain `{self.trust_domain}` has no valid root at the moment")
        return bundle

    def root_key_hash(self, now: datetime) -> str:
        """SHA-256, in hex, of the SubjectPublicKeyInfo of the root above the present issuing authority.

        A join token carries it, so that a node can tell our server from an impostor (traps 10). Raises Unavailable.
        """
        above = self._ring.signer(Kind.ISSUING, now).issuer_key_id or b""
        root = self._ring.get(above)
        found = [root.public_key] if root is not None else self._ring.anchor_keys(above)
        if not found:
            raise Unavailable(f"the root of the trust domain `{self.trust_domain}` is being replaced")
        return hashlib.sha256(found[0]).hexdigest()

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after every change of an authority; what is returned ends that."""
        return self._ring.subscribe(callback)

    async def issued_to(self, instance: str, now: datetime) -> Sequence[Issued]:
        """What was signed for `instance` and is not expired at `now`."""
        return await self._ring.database.read(lambda tx: store.issued_to(tx, instance, now))

    async def sign_x509(self, prepared: Prepared) -> tuple[bytes, ...]:
        """Sign one leaf; see `sign_x509_many`."""
        return (await self.sign_x509_many([prepared]))[0]

    async def sign_x509_many(
        self, batch: Sequence[Prepared], only_if: Unit[None] | None = None
    ) -> list[tuple[bytes, ...]]:
        """Sign leaves under one durable write: all of them or, when one is refused, none.

        Each answer is a chain in DER: the leaf, then the issuing authority. The root is in the bundle. `only_if` is run
        in the transaction that records them; what it raises is raised here, and nothing is recorded or signed.

        Raises:
            Unfit: a rule of `ca.lint` forbids one.
            Stale: one was prepared under an authority that has been replaced; prepare it again.
            Unavailable: there is no valid authority, the clock is not trusted, or the store can't record.
        """
        authority = await self._admit(batch, Kind.LEAF, Kind.ISSUING, only_if)
        assert authority.certificate is not None, "an issuing authority has a certificate"
        key = self._ring.key(authority)
        return [(certificate(each.tbs, await key.sign(each.tbs)), authority.certificate) for each in batch]

    async def sign_jwt(self, prepared: Prepared) -> str:
        """Sign one token, in compact form. Raises what `sign_x509_many` raises."""
        authority = await self._admit([prepared], Kind.JWT, Kind.JWT)
        return jwt.compact(prepared, await self._ring.key(authority).sign(prepared.tbs))

    async def sign_wit(self, prepared: Prepared) -> str:
        """Sign one WIT-SVID, in compact form. Raises what `sign_x509_many` raises."""
        authority = await self._admit([prepared], Kind.WIT, Kind.WIT)
        return jwt.compact(prepared, await self._ring.key(authority).sign(prepared.tbs))

    async def sign_list(self, prepared: Prepared) -> bytes:
        """Sign a revocation list by the authority it is of, in any state but revoked and retired; DER.

        It takes trust away and gives none, so it is signed also while the clocks disagree. Its number is kept by
        whoever asks; nothing is recorded here.

        Raises:
            Unfit: a rule of `ca.lint` forbids it.
            Unavailable: this server has no such authority, or not its key.
        """
        if type(prepared) is not Prepared or prepared.kind is not Kind.CRL:
            raise RuntimeError("only a Prepared of the kind `crl` is signed here")
        authority = self._ring.get(prepared.issuer_key_id)
        if authority is None or authority.certificate is None or not self._ring.has_key(authority):
            raise Unavailable(f"this server has no key of the authority `{prepared.issuer_key_id.hex()}`")
        lint.check(prepared, self._ring.issuer(authority))
        return certificate(prepared.tbs, await self._ring.key(authority).sign(prepared.tbs))

    async def reload(self, now: datetime) -> bool:
        """Notice what other servers committed; answers whether anything changed."""
        return await self._ring.reload(now)

    async def _admit(
        self, batch: Sequence[Prepared], kind: Kind, signer: Kind, only_if: Unit[None] | None = None
    ) -> StoredAuthority:
        """Everything that stands before a signature; gives the authority whose key may then be used."""
        if not self._clock.trusted():
            raise Unavailable("nothing is signed while this machine's clocks disagree")
        now = self._clock.now()
        authority = self._ring.signer(signer, now)
        issuer = self._ring.issuer(authority)
        for each in batch:
            if type(each) is not Prepared or each.kind is not kind:
                raise RuntimeError(f"only a Prepared of the kind `{kind}` is signed here")
            if each.issuer_key_id != authority.key_id or each.not_after <= now:
                raise Stale("its issuer was replaced or its time ran out since it was prepared: prepare it again")
            lint.check(each, issuer)
        if batch:
            await self._record(authority.key_id, batch, now, only_if)
        present = self._ring.get(authority.key_id)
        if present is None or present.state is not State.ACTIVE:
            raise Stale(f"the authority `{authority.key_id.hex()}` was replaced meanwhile: prepare again")
        return authority

    async def _record(
        self, key_id: bytes, batch: Sequence[Prepared], now: datetime, only_if: Unit[None] | None
    ) -> None:
        until = max(each.not_after for each in batch)

        async def unit(tx: Transaction) -> None:
            if only_if is not None:  # first: whoever it has to wait for is not waited for with the authority in hand
                await only_if(tx)
            await store.fence(tx, key_id, until)
            await store.record(tx, batch)

        try:
            await self._ring.database.write(unit)
        except Stale:  # another server's operator said so
            await self._ring.reload(now)
            raise
