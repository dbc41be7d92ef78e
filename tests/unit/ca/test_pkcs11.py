"""Keys on a token: what is refused there, what survives, and an authority that stands on one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters

from ca.errors import Malformed, Unavailable
from ca.keys import open_key_store
from ca.keys.disk import DiskKeyStore
from ca.keys.protocol import KeyUnusable, Place, Purpose
from ca.keys.token import Token, open_token
from ca.keys.token_seal import seal_of
from ca.profiles.prepared import Kind
from ca.rotation import Rotation
from ca.runtime.secret import Reference
from ca.spiffe import x509svid
from ca.spiffe.bundle import BundleSet
from fakes.authority import BEGIN, leaf, opened, token
from fakes.clock import ManualClock
from servers import softhsm


@pytest.fixture
def place() -> Iterator[Place]:
    """An empty token."""
    found = softhsm.place()
    softhsm.sweep()
    yield found
    softhsm.sweep()


def lay(name: str, **template: bool) -> None:
    """Lay a key of our name, made with other attributes, onto the token."""
    curve = softhsm.session().create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    curve.generate_keypair(
        id=b"sojourn\x00tokens\x00" + name.encode(),
        label=name,
        store=True,
        mechanism=Mechanism.EC_KEY_PAIR_GEN,
        private_template={Attribute[key]: value for key, value in template.items()},
    )


async def test_an_authority_stands_on_a_token(tmp_path: Path, place: Place) -> None:
    """It signs, rotates, and is the same after a restart; retired keys are destroyed on the token too."""
    clock = ManualClock(BEGIN)
    async with opened(tmp_path, open_key_store("pkcs11", place), clock) as authority:
        chain = await authority.sign_x509(leaf(authority, BEGIN))
        await authority.sign_jwt(token(authority, BEGIN))
        before = authority.bundle(BEGIN).to_jwks()
    async with opened(tmp_path, open_key_store("pkcs11", place), clock) as authority:
        assert authority.bundle(BEGIN).to_jwks() == before
        x509svid.verify(chain, BundleSet.of(authority.bundle(BEGIN)), BEGIN)
        rotation = Rotation(authority)
        old = authority.jwt_issuer(BEGIN).key_id
        await rotation.replace(Kind.JWT, BEGIN)
        await rotation.taint(old, BEGIN)
        await rotation.revoke(old, BEGIN)
        assert len(await authority.ring.key_store.list()) == len(authority.believed)
        assert not [words for words in authority.warnings if "memory" in words or "unsealed" in words]


@pytest.mark.parametrize(
    "template",
    [{"SENSITIVE": False, "EXTRACTABLE": False}, {"SENSITIVE": True, "EXTRACTABLE": True}],
    ids=["readable", "extractable"],
)
async def test_a_key_that_can_leave_the_token_is_refused(place: Place, template: dict[str, bool]) -> None:
    """Somebody may have a copy."""
    lay("k", **template)
    with pytest.raises(KeyUnusable, match="may have been copied"):
        await open_key_store("pkcs11", place).load("k", Purpose.TOKENS)


async def test_a_public_half_of_another_key_is_refused(place: Place) -> None:
    """Whoever can write the token can't make us publish a key of theirs."""
    store = open_key_store("pkcs11", place)
    await store.create("k", Purpose.TOKENS)
    await store.create("other", Purpose.TOKENS)
    beside = softhsm.session()
    (mine,) = beside.get_objects({Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, Attribute.LABEL: "k"})
    mine.destroy()
    (theirs,) = beside.get_objects({Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, Attribute.LABEL: "other"})
    theirs[Attribute.LABEL] = "k"
    with pytest.raises(KeyUnusable, match="do not belong together"):
        await store.load("k", Purpose.TOKENS)


async def test_two_keys_of_a_name_are_refused(place: Place) -> None:
    """There is no telling which one is ours."""
    for _ in range(2):
        lay("k", SENSITIVE=True, EXTRACTABLE=False)
    with pytest.raises(KeyUnusable, match="2 keys `k`"):
        await open_key_store("pkcs11", place).load("k", Purpose.TOKENS)


async def test_what_others_keep_on_the_token_stays(place: Place) -> None:
    """It is neither listed nor destroyed, whatever it is called."""
    beside, store = softhsm.session(), open_key_store("pkcs11", place)
    beside.generate_key(KeyType.AES, 256, label="k", id=b"k", store=True)
    curve = beside.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    curve.generate_keypair(id=b"theirs", label="k", store=True, mechanism=Mechanism.EC_KEY_PAIR_GEN)
    await store.create("k", Purpose.TOKENS)
    assert list(await store.list()) == ["k"]
    await store.delete("k")
    assert list(await store.list()) == []
    assert len(list(beside.get_objects({Attribute.LABEL: "k"}))) == 3


async def test_a_key_destroyed_by_somebody_else_signs_no_more(place: Place) -> None:
    """The sentence does not blame the caller, and a retry may help when it was only moved."""
    key = await open_key_store("pkcs11", place).create("k", Purpose.TOKENS)
    softhsm.sweep()
    with pytest.raises(Unavailable, match="token `sojourn`"):
        await key.sign(b"words")


async def test_a_lost_session_is_opened_again(place: Place) -> None:
    """Without a new login when that still holds; keys go on signing."""
    store = open_key_store("pkcs11", place)
    key = await store.create("k", Purpose.TOKENS)
    held = store._token  # type: ignore[attr-defined]
    held._session.raw.close()
    beside = softhsm.session()  # the last session's end is the login's end: somebody else's is open
    assert len(await key.sign(b"words")) > 60
    beside.close()


async def test_a_token_that_went_away_may_come_back(place: Place) -> None:
    """While it is gone there is no signature; that ends no process, and with the token keys are there again."""
    key = await open_key_store("pkcs11", place).create("k", Purpose.TOKENS)
    held = key._token  # type: ignore[attr-defined]
    held._session.raw.close()
    held.label = "absent"
    with pytest.raises(Unavailable, match="exactly one token `absent`") as caught:
        await key.sign(b"words")
    assert caught.value.retryable
    held.label = place.token
    assert len(await key.sign(b"words")) > 60


async def test_a_wrong_pin_is_tried_once(tmp_path: Path) -> None:
    """A second try would be one step towards a locked token; the PIN is in no sentence."""
    softhsm.place()
    (tmp_path / "pin").write_text("0000-wrong")
    held = Token(softhsm.module(), "other", Reference("file", str(tmp_path / "pin")))
    for _ in range(2):
        with pytest.raises(KeyUnusable, match="refuses the PIN") as caught:
            await held.run(lambda session: session)
        assert "0000-wrong" not in repr(caught.value)
        (tmp_path / "pin").unlink(missing_ok=True)  # the second time it is not even read


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"token": "absent"}, "exactly one token `absent`"), ({"module": Path("/nowhere.so")}, "can't use the PKCS#11")],
)
async def test_a_token_that_is_not_there_is_named(place: Place, changes: dict[str, Any], words: str) -> None:
    """Module or label, whichever is wrong."""
    with pytest.raises(KeyUnusable, match=words):
        await open_key_store("pkcs11", replace(place, **changes)).list()


@pytest.mark.parametrize("missing", [{"module": None}, {"token": ""}, {"pin": None}])
def test_a_place_that_says_too_little_is_refused(place: Place, missing: dict[str, Any]) -> None:
    """Before anything is asked of a token."""
    with pytest.raises(Malformed, match="`module`, the label of the `token` and its `pin`"):
        open_key_store("pkcs11", replace(place, **missing))


async def test_a_seal_from_the_token_opens_only_with_it(tmp_path: Path, place: Place) -> None:
    """Keys on disk are read back under the same secret, and under no other."""
    assert place.module is not None
    assert place.pin is not None
    held = open_token(place.module, place.token, place.pin)
    for label in ("seal", "other"):
        softhsm.secret(label, SENSITIVE=True, EXTRACTABLE=False)
    seal, again, other = await seal_of(held, "seal"), await seal_of(held, "seal"), await seal_of(held, "other")
    assert seal.key_name == again.key_name != other.key_name
    await DiskKeyStore(tmp_path / "keys", seal).create("k", Purpose.TOKENS)
    assert (await DiskKeyStore(tmp_path / "keys", again).load("k", Purpose.TOKENS)).name == "k"
    with pytest.raises(KeyUnusable, match="sealed under the key"):
        await DiskKeyStore(tmp_path / "keys", other).load("k", Purpose.TOKENS)


async def test_a_sealing_secret_that_may_leave_the_token_is_refused(place: Place) -> None:
    """So is one that is not there, and one of two."""
    assert place.module is not None
    assert place.pin is not None
    held = open_token(place.module, place.token, place.pin)
    with pytest.raises(KeyUnusable, match="0 generic secrets"):
        await seal_of(held, "seal")
    softhsm.secret("seal", SENSITIVE=True, EXTRACTABLE=True)
    with pytest.raises(KeyUnusable, match="may leave the token"):
        await seal_of(held, "seal")
    softhsm.secret("seal", SENSITIVE=True, EXTRACTABLE=False)
    with pytest.raises(KeyUnusable, match="2 generic secrets"):
        await seal_of(held, "seal")
