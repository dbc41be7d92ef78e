"""A leaf that is filled in is, byte for byte, the one the library would have built."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.engines.postgres.certificate import BACKDATE, ClientAuthority, Mould, leaf_builder
from ca.keys.memory import MemoryKeyStore
from ca.keys.protocol import KeyUnusable, Purpose

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "PostgreSQL clients of orders-db")])


@pytest.mark.parametrize("role", ["a", "sj_00000000_" + "a" * 51])
@pytest.mark.parametrize("serial", [1, 127, 128, 255, 256, (1 << 126) - 1])
@pytest.mark.parametrize("end", [NOON, NOON.replace(year=2049, month=12, day=31), NOON.replace(year=2050)])
def test_what_is_filled_in_is_what_is_built(role: str, serial: int, end: datetime) -> None:
    """Serials at the edge of a byte, years at the edge of a format, names at the limit."""
    draft, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    key_id = bytes(range(20))
    built = leaf_builder(ISSUER, key_id, role, serial, NOON, end).public_key(key.public_key())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    filled = Mould(ISSUER, key_id, draft).fill(role, public, serial, NOON, end)
    assert filled == built.sign(key, hashes.SHA256()).tbs_certificate_bytes


async def test_a_leaf_is_signed_by_its_ca_and_its_key_is_its_own() -> None:
    """Read by the library: signature, window, key, issuer."""
    authority = ClientAuthority(MemoryKeyStore(), "orders-db")
    made = await authority.issue("sj_a", NOON, NOON + timedelta(minutes=5))
    leaf, ca = (x509.load_pem_x509_certificate(text.encode()) for text in (made.certificate, await authority.pem()))
    leaf.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(ca)
    private = load_pem_private_key(made.private_key.reveal().encode(), None)
    assert private.public_key() == leaf.public_key()
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (NOON - BACKDATE, NOON + timedelta(minutes=5))
    assert made.private_key.reveal() not in repr(made)


async def test_the_ca_signs_clients_only_and_no_further_ca() -> None:
    """Path length 0, clientAuth, and no end but the owner's."""
    ca = x509.load_pem_x509_certificate((await ClientAuthority(MemoryKeyStore(), "orders-db").pem()).encode())
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = ca.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert (usage.critical, list(usage.value)) == (True, [ExtendedKeyUsageOID.CLIENT_AUTH])
    assert ca.not_valid_after_utc.year == 9999


async def test_two_targets_have_two_keys_and_a_restart_finds_its_own() -> None:
    """By the target's name, in the broker's own store, for one purpose."""
    keys = MemoryKeyStore()
    one, again, other = (ClientAuthority(keys, name) for name in ("orders-db", "orders-db", "invoices-"))
    serials = [
        x509.load_pem_x509_certificate((await authority.pem()).encode()).serial_number
        for authority in (one, again, other)
    ]
    assert serials[0] == serials[1] != serials[2]
    assert await keys.list() == ["pg-invoices--clients", "pg-orders-db-clients"]


async def test_a_key_for_another_purpose_is_not_used() -> None:
    """Even under the right name."""
    keys = MemoryKeyStore()
    await keys.create("pg-orders-db-clients", Purpose.SSH_CA)
    with pytest.raises(KeyUnusable):
        await ClientAuthority(keys, "orders-db").issue("sj_a", NOON, NOON)
