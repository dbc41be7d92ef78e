"""Seals: what opens, and everything that does not."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.runtime.secret import Reference
from ca.seal import AesSeal, SealBroken, SealRing, sealed_by

KEY = bytes(range(200, 232))
OTHER = bytes(range(100, 132))


@given(content=st.binary(max_size=300), context=st.binary(max_size=50))
def test_what_is_sealed_opens_for_the_same_context(content: bytes, context: bytes) -> None:
    """Sealing and opening are inverse."""
    seal = AesSeal(KEY)
    assert seal.open(seal.seal(content, context), context) == content


def test_sealing_twice_gives_two_envelopes() -> None:
    """Every envelope has a nonce of its own."""
    assert AesSeal(KEY).seal(b"x", b"") != AesSeal(KEY).seal(b"x", b"")


def test_an_envelope_shows_nothing_of_its_content() -> None:
    """The content is not in the envelope."""
    assert b"hunter2-hunter2" not in AesSeal(KEY).seal(b"hunter2-hunter2", b"")


def test_another_context_is_refused() -> None:
    """A value copied to another place does not open there."""
    with pytest.raises(SealBroken, match="another use"):
        AesSeal(KEY).open(AesSeal(KEY).seal(b"x", b"key a"), b"key b")


def test_another_key_is_named() -> None:
    """The sentence names both keys without telling them."""
    envelope = AesSeal(OTHER).seal(b"x", b"")
    with pytest.raises(SealBroken) as caught:
        AesSeal(KEY).open(envelope, b"")
    assert AesSeal(OTHER).key_name in str(caught.value)
    assert AesSeal(KEY).key_name in str(caught.value)


def test_each_changed_bit_is_noticed() -> None:
    """Header, nonce, ciphertext and tag are all authenticated."""
    envelope = AesSeal(KEY).seal(b"content", b"context")
    for position in range(len(envelope) * 8):
        changed = bytearray(envelope)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(SealBroken):
            AesSeal(KEY).open(bytes(changed), b"context")


def test_each_cut_is_noticed() -> None:
    """No beginning of an envelope opens."""
    envelope = AesSeal(KEY).seal(b"content", b"context")
    for length in range(len(envelope)):
        with pytest.raises(SealBroken):
            AesSeal(KEY).open(envelope[:length], b"context")


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda key: key.hex().encode() + b"\n",
    "HEX": lambda key: key.hex().upper().encode(),
    "base64": lambda key: base64.b64encode(key) + b"\n",
    "base64url without padding": lambda key: base64.urlsafe_b64encode(key).rstrip(b"="),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("key", [KEY, bytes([251, 255] * 16), bytes(32)])
def test_a_key_may_be_spelled_in_each_of_these_ways(tmp_path: Path, spelling: str, key: bytes) -> None:
    """All spellings of one key give the same seal."""
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_bytes(SPELLINGS[spelling](key))
    assert AesSeal.from_reference(Reference("file", str(file))).key_name == AesSeal(key).key_name


def test_a_key_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`env:` is read like a file."""
    monkeypatch.setenv("SOJOURN_TEST_SEAL", KEY.hex())
    assert AesSeal.from_reference(Reference("env", "SOJOURN_TEST_SEAL")).key_name == AesSeal(KEY).key_name


@pytest.mark.parametrize(
    "content",
    [b"", b"correct horse battery staple!!!!", b"short", KEY[:31], KEY + b"\x01", b"z" * 64, KEY.hex().encode()[:-1]],
)
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    """A passphrase, a short key and a long one are no keys; none is shown."""
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_bytes(content)
    with pytest.raises(Malformed) as caught:
        AesSeal.from_reference(Reference("file", str(file)))
    assert not content or repr(content)[2:-1] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_a_key_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    """The sentence says which mode it has."""
    file = tmp_path / "key"
    file.write_bytes(KEY)
    file.chmod(mode)
    with pytest.raises(Malformed, match=f"{mode:04o}"):
        AesSeal.from_reference(Reference("file", str(file)))


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    """The sentence says which file."""
    with pytest.raises(Malformed, match="no-such-key"):
        AesSeal.from_reference(Reference("file", str(tmp_path / "no-such-key")))


def test_a_seal_prints_only_its_keys_name() -> None:
    """Neither repr nor attributes show the key."""
    assert repr(AesSeal(KEY)) == f"AesSeal({AesSeal(KEY).key_name})"
    assert KEY.hex() not in repr(AesSeal(KEY))


def test_a_ring_seals_under_the_newest_and_opens_under_any() -> None:
    """A former key opens only what it sealed itself, and what no key of the ring sealed is refused."""
    ring = SealRing(AesSeal(KEY), AesSeal(OTHER))
    assert sealed_by(ring.seal(b"x", b"c")) == ring.key_name == AesSeal(KEY).key_name
    assert ring.open(AesSeal(OTHER).seal(b"x", b"c"), b"c") == b"x"
    for strange in (AesSeal(bytes(32)).seal(b"x", b"c"), AesSeal(OTHER).seal(b"x", b"d"), b"", b"SJ\x01"):
        with pytest.raises(SealBroken):
            ring.open(strange, b"c")
    assert KEY.hex() not in repr(ring)
