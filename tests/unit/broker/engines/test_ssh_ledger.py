"""The list of revoked keys: what it remembers, what it forgets, what it refuses; and the bytes SSH is made of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.engines.protocol import Claim
from broker.engines.ssh import wire
from broker.engines.ssh.certificate import LONGEST, serial
from broker.engines.ssh.ledger import BEHIND, MOST, Entry, Ledger, key_id
from ca.errors import Conflict, Malformed, NotFound

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = NOON + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "00000000"),
        (0x9A378F9B2E332A7, "0000000809a378f9b2e332a7"),
        (0x80, "000000020080"),
        (0x7F, "000000017f"),
        (0xFF00, "0000000300ff00"),
    ],
)
def test_numbers_as_rfc_4251_has_them(value: int, written: str) -> None:
    """Section 5, with its examples."""
    assert wire.mpint(value).hex() == written


@given(st.binary(max_size=80))
def test_a_reader_never_reads_beyond(content: bytes) -> None:
    """Whatever a length says."""
    reader = wire.Reader(content)
    try:
        read = reader.string()
    except Malformed:
        return
    assert wire.string(read) == content[: 4 + len(read)]


def test_a_serial_is_never_zero_and_follows_from_the_key_id() -> None:
    """Zero can't be revoked by number."""
    assert serial("a") == serial("a") != serial("b")
    assert 0 < serial("a") < 2**64


def test_what_was_written_is_read_again() -> None:
    """Entries, claim and version; the names of the revoked stand where hosts look for them."""
    ledger = Ledger(version=7, claim=Claim(installation="aaaaaaaa", incarnation="One1"))
    assert ledger.sign("sj_aaaaaaaa_x", SOON) == "sj_aaaaaaaa_x"
    assert ledger.sign_again("sj_aaaaaaaa_x", SOON) == "sj_aaaaaaaa_x.2"
    ledger.revoke("sj_aaaaaaaa_y", NOON)
    content = ledger.encode(NOON)
    assert Ledger.decode(content) == ledger
    assert wire.string(b"sj_aaaaaaaa_x") in content
    assert wire.string(b"sj_aaaaaaaa_x.2") not in content
    assert wire.string(f"sj_aaaaaaaa_y.{MOST}".encode()) in content


def test_a_name_is_signed_for_once() -> None:
    """Neither again, nor after it was revoked, known before or not."""
    ledger = Ledger()
    ledger.sign("a", SOON)
    with pytest.raises(Conflict):
        ledger.sign("a", SOON)
    ledger.revoke("b", NOON)
    with pytest.raises(Conflict):
        ledger.sign("b", SOON)
    with pytest.raises(NotFound):
        ledger.sign_again("c", SOON)
    ledger.revoke("a", NOON)
    with pytest.raises(Conflict):
        ledger.sign_again("a", SOON)


def test_a_secret_is_asked_for_again_only_so_often() -> None:
    """Each time the one before is dead."""
    ledger = Ledger()
    ledger.sign("a", SOON)
    for generation in range(2, MOST + 1):
        assert ledger.sign_again("a", SOON) == key_id("a", generation)
        assert ledger.entries["a"].revoked == generation - 1
    with pytest.raises(Conflict):
        ledger.sign_again("a", SOON)


def test_an_entry_outlives_its_certificate_by_what_a_clock_may_be_behind() -> None:
    """Also one of a name nobody knew: whatever was signed for it lives `LONGEST` at most."""
    ledger = Ledger()
    ledger.sign("a", SOON)
    ledger.revoke("b", NOON)
    ledger.drop_old(SOON + BEHIND - timedelta(seconds=1))
    assert set(ledger.entries) == {"a", "b"}
    ledger.drop_old(SOON + BEHIND)
    assert set(ledger.entries) == {"b"}
    ledger.drop_old(NOON + LONGEST + BEHIND)
    assert not ledger.entries


def test_names_are_of_those_that_may_still_open_something() -> None:
    """Not revoked, not expired, of this prefix."""
    ledger = Ledger()
    for name in ("sj_a_1", "sj_a_2", "sj_b_1"):
        ledger.sign(name, SOON)
    ledger.revoke("sj_a_2", NOON)
    assert ledger.names("sj_a_", NOON) == ["sj_a_1"]
    assert ledger.names("sj_", SOON) == []


def test_of_two_copies_the_harsher_word_counts() -> None:
    """What is revoked in one is revoked; claims must be one."""
    one, two = Ledger(version=3), Ledger(version=9)
    one.entries["a"], two.entries["a"] = Entry(2, 1, 100), Entry(1, 1, 300)
    one.entries["b"], two.entries["b"] = Entry(1, 1, 100), Entry(1, 0, 100)
    one.add(two)
    assert (one.version, one.entries) == (9, {"a": Entry(2, 1, 300), "b": Entry(1, 1, 100)})
    one.claim, two.claim = Claim(installation="a" * 8, incarnation="x"), Claim(installation="b" * 8, incarnation="x")
    with pytest.raises(Conflict):
        one.add(two)


def whole() -> bytes:
    """A list of ours."""
    ledger = Ledger(claim=Claim(installation="aaaaaaaa", incarnation="x"))
    ledger.sign("a", SOON)
    return ledger.encode(NOON)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"ssh-ed25519 AAAA a list of keys in plain text\n",
        lambda content: content[:20],
        lambda content: content.replace(b"\0\0\0\1", b"\0\0\0\2", 1),
        lambda content: content.replace(b"sojourn 1", b"sojourn 2"),
        lambda content: content.replace(b"a 1 0 ", b"a 1 2 "),
        lambda content: content.replace(b"a 1 0 ", b"a 9 0 "),
        lambda content: content.replace(b"a 1 0 ", b"A 1 0 "),
        lambda content: content.replace(b"claim a", b"cliam a"),
    ],
)
def test_what_is_not_ours_or_damaged_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    """It is never taken for an empty one."""
    spoiled = spoil(whole())
    assert spoiled != whole()
    with pytest.raises(Malformed):
        Ledger.decode(spoiled)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_malformed(content: bytes) -> None:
    """Nothing else is raised."""
    head = whole()[:44]
    for candidate in (content, head + content):
        try:
            Ledger.decode(candidate)
        except Malformed:
            continue
