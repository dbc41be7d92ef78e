"""A secret for one key in one TPM: what a TPM opens, and what it does not."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from attestor.errors import NotProven
from attestor.methods.tpm.credential import Kind, kind_of, make_credential
from attestor.methods.tpm.device import Device
from attestor.methods.tpm.structures import AttestationKey, Quote
from ca.errors import Unavailable
from fakes.tpms import Forged
from servers import swtpm


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TPM."""
    folder = tmp_path_factory.mktemp("tpm")
    return swtpm.Maker(folder / "maker").tpm(folder / "tpm")


@pytest.mark.parametrize("kind", ["rsa-2048", "p-256", "p-384"])
async def test_a_tpm_opens_what_was_made_without_one(state: Path, kind: Kind) -> None:
    """For each kind of endorsement key; for another name, or with a bit changed, it opens nothing."""
    async with swtpm.running(state) as tcti:
        device = Device(tcti, kind)
        try:
            key = serialization.load_der_public_key(device.shown.endorsement_key)
            assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
            ours, secret = AttestationKey.parse(device.shown.attestation_key), secrets.token_bytes(32)
            made = make_credential(key, ours.name, secret)
            assert device.activate(made.id_object, made.seed) == secret
            other = make_credential(key, AttestationKey.parse(Forged().area).name, secret)
            maimed = made.id_object[:-1] + bytes([made.id_object[-1] ^ 1])
            for id_object, seed in ((other.id_object, other.seed), (maimed, made.seed), (b"", b""), (bytes(9000), b"")):
                with pytest.raises(Unavailable, match="can't be used"):
                    device.activate(id_object, seed)
            assert device.activate(made.id_object, made.seed) == secret
        finally:
            device.close()


async def test_a_tpm_is_the_same_each_time(state: Path) -> None:
    """Nothing is stored and nothing stays loaded, however often it is asked; its kinds have keys of their own."""
    async with swtpm.running(state) as tcti:
        shown = []
        for _ in range(8):
            device = Device(tcti, "rsa-2048")
            shown.append(device.shown)
            device.close()
        assert len(set(shown)) == 1
    async with swtpm.running(state) as tcti:
        device = Device(tcti, "p-384")
        assert device.shown.endorsement_key != shown[0].endorsement_key
        assert device.shown.attestation_key == shown[0].attestation_key
        quoted = device.quote(b"x" * 32, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        device.close()
    AttestationKey.parse(shown[0].attestation_key).check(quoted.statement, quoted.signature)
    assert Quote.parse(quoted.statement).covers(dict(enumerate(quoted.values)))


def test_keys_of_other_kinds_get_nothing() -> None:
    """Too small, too large, another exponent, another curve, not of these at all."""
    for key in (
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(65537, 3072),
        rsa.generate_private_key(3, 2048),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ):
        assert kind_of(key.public_key()) == ""
    with pytest.raises(NotProven, match="neither RSA"):
        make_credential(ec.generate_private_key(ec.SECP256K1()).public_key(), bytes(34), bytes(32))


def test_a_tpm_that_is_not_there() -> None:
    """Is said in words."""
    with pytest.raises(Unavailable, match="device:/nowhere"):
        Device("device:/nowhere", "rsa-2048")
