"""How a new authority comes to be: intend its key, make it, certify it, and only then let peers know of it.

The intent is durable before the key exists, so a crash in between leaves a key that the next start finds by name and
destroys. The certificate's serial is recorded before it is signed, like that of a leaf.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from ca import lint, store
from ca.authority.purposes import PURPOSES
from ca.authority.ring import Ring
from ca.authority.shown import spki
from ca.errors import Unavailable
from ca.keys.protocol import SigningKey
from ca.profiles import ca_certificate
from ca.profiles.prepared import BACKDATE, Issuer, Kind, Prepared
from ca.profiles.template import certificate
from ca.runtime.database import Transaction
from ca.spiffe import der
from ca.store import State, StoredAuthority


async def establish(ring: Ring, kind: Kind, now: datetime) -> None:
    """Make an authority in the state `prepared`; it is in the bundle before it signs anything.

    Raises:
        Unavailable: an issuing authority needs a valid root, and a key needs a place.
    """
    root = await _signer(ring, now) if kind is Kind.ISSUING else None  # before any key is made
    await ring.clear_intents()
    name = f"{kind}-{secrets.token_hex(8)}"
    await ring.database.write(partial(store.intend_key, server=ring.settings.server, key_name=name))
    key = await ring.key_store.create(name, PURPOSES[kind])
    if kind in {Kind.JWT, Kind.WIT}:
        end = (now + ring.settings.ttl(kind)).replace(microsecond=0)
        authority = _authority(ring, kind, key, ((now - BACKDATE).replace(microsecond=0), end))
    elif root is None:
        authority = await _root(ring, key, now)
    else:
        authority = await _issuing(ring, root, key, now)
    await ring.add(replace(authority, published_at=now), key, now)


async def _root(ring: Ring, key: SigningKey, now: datetime) -> StoredAuthority:
    settings = ring.settings
    own = ca_certificate.root_issuer(
        key.public_key,
        trust_domain=settings.trust_domain,
        organisation=settings.organisation,
        country=settings.country,
        ttl=settings.root_ttl,
        now=now,
    )
    prepared = ca_certificate.prepare_root(key.public_key, own)
    return replace(await _certify(ring, prepared, own, key, key), issuer_key_id=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signer:
    """The root above a new issuing authority, ours or one kept elsewhere."""

    issuer: Issuer
    key: SigningKey


async def _signer(ring: Ring, now: datetime) -> _Signer:
    if ring.upstream is None:
        root = ring.signer(Kind.ROOT, now)
        return _Signer(issuer=ring.issuer(root), key=ring.key(root))
    certificate, key = await ring.upstream.root(now)
    if not ring.shows(certificate):
        raise Unavailable("the root that is kept elsewhere is not in the bundle yet")
    settings = ring.settings
    issuer = Issuer(
        trust_domain=settings.trust_domain,
        key_id=der.key_id_of(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        subject=certificate.subject.public_bytes(),
        organisation=settings.organisation,
        country=settings.country,
    )
    return _Signer(issuer=issuer, key=key)


async def _issuing(ring: Ring, root: _Signer, key: SigningKey, now: datetime) -> StoredAuthority:
    prepared = ca_certificate.prepare_issuing(key.public_key, root.issuer, ttl=ring.settings.ca_ttl, now=now)
    return await _certify(ring, prepared, root.issuer, key, root.key)


async def _certify(
    ring: Ring, prepared: Prepared, issuer: Issuer, key: SigningKey, signer: SigningKey
) -> StoredAuthority:
    lint.check(prepared, issuer)

    async def unit(tx: Transaction) -> None:
        if prepared.kind is not Kind.ROOT and ring.upstream is None:  # no other root is one of our authorities yet
            await store.fence(tx, issuer.key_id, prepared.not_after)
        await store.record(tx, [prepared])

    await ring.database.write(unit)
    signed = certificate(prepared.tbs, await signer.sign(prepared.tbs))
    authority = _authority(ring, prepared.kind, key, (prepared.not_before, prepared.not_after))
    return replace(authority, certificate=signed, issuer_key_id=issuer.key_id)


def _authority(ring: Ring, kind: Kind, key: SigningKey, validity: tuple[datetime, datetime]) -> StoredAuthority:
    return StoredAuthority(
        server=ring.settings.server,
        key_id=key.key_id,
        kind=kind,
        state=State.PREPARED,
        key_name=key.name,
        issuer_key_id=None,
        public_key=spki(key),
        certificate=None,
        not_before=validity[0],
        not_after=validity[1],
        signed_until=validity[0],
        published_at=validity[0],
    )
