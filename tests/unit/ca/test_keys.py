"""Keys in files: who may read them, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ca.errors import Unavailable
from ca.keys.disk import DiskKeyStore
from ca.keys.protocol import KeyUnusable, Purpose
from ca.seal import AesSeal, SealRing

SEAL = AesSeal(bytes(range(32)))
OTHER = AesSeal(bytes(range(1, 33)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "keys"


async def test_folder_and_files_are_their_owners_alone(folder: Path) -> None:
    """0700 and 0600, whatever the umask."""
    before = os.umask(0)
    try:
        await DiskKeyStore(folder, None).create("k", Purpose.TOKENS)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "k.key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["k.key"]


async def test_a_folder_may_hand_its_group_down(folder: Path) -> None:
    """So it is made on a volume whose root does, as in a pod; group and others still have no way in."""
    folder.parent.chmod(0o2775)
    await DiskKeyStore(folder, SEAL).create("k", Purpose.TOKENS)
    folder.chmod(0o2700)
    assert await DiskKeyStore(folder, SEAL).load("k", Purpose.TOKENS)
    folder.chmod(0o2750)
    with pytest.raises(KeyUnusable, match="2750"):
        await DiskKeyStore(folder, SEAL).list()


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o777])
async def test_a_folder_open_to_others_is_refused(folder: Path, mode: int) -> None:
    """It is not mended: somebody may have been there already."""
    store = DiskKeyStore(folder, None)
    await store.create("k", Purpose.TOKENS)
    folder.chmod(mode)
    for attempt in (store.load("k", Purpose.TOKENS), store.create("l", Purpose.TOKENS), store.list()):
        with pytest.raises(KeyUnusable, match=f"{mode:04o}"):
            await attempt
    with pytest.raises(KeyUnusable):
        DiskKeyStore(folder, None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
async def test_a_file_open_to_others_is_refused(folder: Path, mode: int) -> None:
    """Only reading and writing, only by its owner."""
    store = DiskKeyStore(folder, SEAL)
    await store.create("k", Purpose.TOKENS)
    (folder / "k.key").chmod(mode)
    with pytest.raises(KeyUnusable, match=f"{mode:04o}"):
        await store.load("k", Purpose.TOKENS)


def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    """Whoever owns the folder owns the keys in it."""
    place = folder
    if os.geteuid() == 0:
        folder.mkdir(mode=0o700)
        os.chown(folder, 65534, 65534)
    else:
        place = Path("/")
    with pytest.raises(KeyUnusable, match="belongs to the user"):
        DiskKeyStore(place, None)


async def test_a_link_to_a_key_is_refused(folder: Path) -> None:
    """A name in the folder is a file in the folder."""
    store = DiskKeyStore(folder, None)
    await store.create("k", Purpose.TOKENS)
    (folder / "l.key").symlink_to(folder / "k.key")
    with pytest.raises(KeyUnusable):
        await store.load("l", Purpose.TOKENS)


def test_a_file_where_the_folder_should_be_is_refused(folder: Path) -> None:
    """The sentence names it."""
    folder.write_text("")
    with pytest.raises(KeyUnusable, match="can't make the key folder"):
        DiskKeyStore(folder, None)


async def test_a_sealed_file_holds_no_key(folder: Path) -> None:
    """Neither the file's text nor what is decoded of it can be read as a key."""
    await DiskKeyStore(folder, SEAL).create("k", Purpose.TOKENS)
    document = json.loads((folder / "k.key").read_bytes())
    with pytest.raises(ValueError):
        serialization.load_der_private_key(base64.b64decode(document["key"]), password=None)
    assert document["sealed"] is True


async def test_seal_and_file_must_agree(folder: Path, tmp_path: Path) -> None:
    """Sealed without a seal, unsealed with one, and another seal are three refusals."""
    await DiskKeyStore(folder, SEAL).create("k", Purpose.TOKENS)
    plain = tmp_path / "plain"
    await DiskKeyStore(plain, None).create("k", Purpose.TOKENS)
    for place, seal, words in (
        (folder, None, "is sealed and no sealing key"),
        (folder, OTHER, "can't unseal"),
        (plain, SEAL, "is not sealed, but"),
    ):
        with pytest.raises(KeyUnusable, match=words):
            await DiskKeyStore(place, seal).load("k", Purpose.TOKENS)


async def test_a_sealed_key_cannot_be_passed_off_as_another(folder: Path) -> None:
    """Renamed, and with its labels changed to match, it still does not open."""
    store = DiskKeyStore(folder, SEAL)
    await store.create("k", Purpose.TOKENS)
    shutil.copy(folder / "k.key", folder / "l.key")
    with pytest.raises(KeyUnusable, match="holds the key `k`"):
        await store.load("l", Purpose.TOKENS)
    document = json.loads((folder / "l.key").read_bytes())
    for changes in ({"name": "l"}, {"name": "l", "purpose": "spiffe-root"}):
        (folder / "l.key").write_text(json.dumps({**document, **changes}))
        with pytest.raises(KeyUnusable):
            await store.load("l", Purpose({**document, **changes}["purpose"]))


@pytest.mark.parametrize(
    "changes",
    [{"version": 2}, {"version": True}, {"sealed": 0}, {"key": "%%%"}, {"key": ""}, {"key": "AAAA"}, {"purpose": None}],
)
async def test_a_damaged_file_is_refused(folder: Path, changes: dict[str, object]) -> None:
    """Each member is checked before it is used."""
    store = DiskKeyStore(folder, None)
    await store.create("k", Purpose.TOKENS)
    document = json.loads((folder / "k.key").read_bytes())
    (folder / "k.key").write_text(json.dumps({**document, **changes}))
    with pytest.raises(KeyUnusable, match=r"k\.key"):
        await store.load("k", Purpose.TOKENS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"{}"])
async def test_what_is_no_key_file_is_refused(folder: Path, content: bytes) -> None:
    """Nothing but our own document is read."""
    store = DiskKeyStore(folder, None)
    await store.create("k", Purpose.TOKENS)
    (folder / "k.key").write_bytes(content)
    with pytest.raises(KeyUnusable, match="damaged"):
        await store.load("k", Purpose.TOKENS)


async def test_a_key_of_another_curve_is_refused(folder: Path) -> None:
    """Every key here is on P-256."""
    store = DiskKeyStore(folder, None)
    await store.create("k", Purpose.TOKENS)
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    document = json.loads((folder / "k.key").read_bytes())
    (folder / "k.key").write_text(json.dumps({**document, "key": base64.b64encode(other).decode()}))
    with pytest.raises(KeyUnusable, match="P-256"):
        await store.load("k", Purpose.TOKENS)


async def test_what_a_crash_left_aside_is_removed(folder: Path) -> None:
    """A file that was never linked under its name is nobody's key."""
    await DiskKeyStore(folder, None).create("k", Purpose.TOKENS)
    (folder / "l.new").write_bytes(b"half a key")
    assert list(await DiskKeyStore(folder, None).list()) == ["k"]
    assert not (folder / "l.new").exists()


async def test_a_place_that_cannot_be_written_is_said_and_leaves_nothing(folder: Path) -> None:
    """The failure is one that may pass, and no half key stays."""
    store = DiskKeyStore(folder, None)
    (folder / "k.new").mkdir()
    with pytest.raises(Unavailable, match="can't write the key file"):
        await store.create("k", Purpose.TOKENS)
    assert list(await store.list()) == []


async def test_keys_are_sealed_anew_under_the_key_that_replaced_theirs(folder: Path) -> None:
    """The same keys; afterwards the former sealing key opens none of them, and a second time finds nothing to do."""
    first, second = AesSeal(bytes(32)), AesSeal(bytes([1] * 32))
    before = [await DiskKeyStore(folder, first).create(name, Purpose.SSH_CA) for name in ("a", "b")]
    assert [await DiskKeyStore(folder, SealRing(second, first)).reseal() for _ in range(2)] == [2, 0]
    for key in before:
        assert (await DiskKeyStore(folder, second).load(key.name, Purpose.SSH_CA)).key_id == key.key_id
        with pytest.raises(KeyUnusable):
            await DiskKeyStore(folder, first).load(key.name, Purpose.SSH_CA)
    assert sorted(path.name for path in folder.iterdir()) == ["a.key", "b.key"]


async def test_a_key_of_a_lost_sealing_key_is_not_lost_by_sealing_anew(folder: Path) -> None:
    """It is said, and the file stays."""
    await DiskKeyStore(folder, AesSeal(bytes(32))).create("a", Purpose.SSH_CA)
    content = (folder / "a.key").read_bytes()
    with pytest.raises(KeyUnusable):
        await DiskKeyStore(folder, AesSeal(bytes([1] * 32))).reseal()
    assert (folder / "a.key").read_bytes() == content
