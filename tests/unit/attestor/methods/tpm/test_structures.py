"""What a TPM says, whole and maimed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.errors import BadConversation, NotProven
from attestor.methods.tpm.structures import AttestationKey, Quote
from ca.errors import Problem
from fakes.tpms import Forged, Statement, public_area, selection, sized

KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
REAL_AREA = bytes.fromhex(
    "0023000b00050472000000100018000b0003001000205a8aba00051746165b874abd735e4a0ddd6ffcf055a6aed01c3f0230ddae3a95"
    "00205a448724cc196ea5673085a20dc9915f157e3cb1c3f1013b3cddcbe9883a5534"
)
REAL_NAME = "000b0707ee6f40fdf8a4622c9653bad506880958e559b77c0cc11799a953592f7a55"
REAL_QUOTE = (
    bytes.fromhex("ff54434780180022000b1d110559a87a5ba33ac208a5e00b0f71946f74fb88290e385f29cfc9f1dfefa80020")
    + b"x" * 32
    + bytes.fromhex("0000000000000296000000020000000001201910230016363600000001000b038100000020")
    + bytes.fromhex("f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b")
)
GOOD = Statement(b"x" * 32)


def test_what_a_tpm_said() -> None:
    """Its name of the key is ours; the quote is of two registers that hold nothing."""
    assert AttestationKey.parse(REAL_AREA).name.hex() == REAL_NAME
    quote = Quote.parse(REAL_QUOTE)
    assert (quote.extra, quote.pcrs) == (b"x" * 32, frozenset({0, 7}))
    assert quote.covers({0: bytes(32), 7: bytes(32)})
    assert not quote.covers({0: bytes(32)})
    assert not quote.covers({0: bytes(32), 1: bytes(32)})
    assert not quote.covers({0: bytes(32), 7: b"\x01" * 32})


@pytest.mark.parametrize("whole", [REAL_AREA, public_area(KEY)])
def test_a_public_area_with_a_byte_more_or_less_is_none(whole: bytes) -> None:
    """Cut anywhere."""
    for maimed in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        with pytest.raises(Problem):
            AttestationKey.parse(maimed)


@pytest.mark.parametrize("whole", [REAL_QUOTE, bytes(GOOD)])
def test_a_quote_with_a_byte_more_or_less_is_none(whole: bytes) -> None:
    """Cut anywhere."""
    for maimed in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        with pytest.raises(BadConversation):
            Quote.parse(maimed)


@pytest.mark.parametrize("bit", [0x2, 0x10, 0x20, 0x10000, 0x20000, 0x40000])
def test_a_key_that_could_sign_anything_attests_nothing(bit: int) -> None:
    """Not made by the TPM, not kept by it, not restricted, for decryption as well, or not for signatures."""
    with pytest.raises(NotProven, match="only a TPM"):
        AttestationKey.parse(public_area(KEY, 0x00050472 ^ bit))


def test_a_key_of_another_kind_is_refused() -> None:
    """Another scheme, another type, another digest of its name, or no point of the curve."""
    area = public_area(KEY)
    for other in (
        public_area(KEY, scheme=0x0010),
        b"\x00\x01" + area[2:],
        area[:2] + b"\x00\x0c" + area[4:],
        area[:-1] + bytes([area[-1] ^ 1]),
    ):
        with pytest.raises(NotProven):
            AttestationKey.parse(other)


@pytest.mark.parametrize(
    "statement",
    [
        replace(GOOD, magic=b"\xff\x54\x43\x48"),
        replace(GOOD, kind=b"\x80\x17"),  # TPM_ST_ATTEST_CERTIFY
        replace(GOOD, kind=b"\x80\x14"),  # TPM_ST_ATTEST_NV
        replace(GOOD, selected=selection(7, bank=0x0004)),
    ],
)
def test_what_is_no_quote_of_ours_is_refused(statement: Statement) -> None:
    """Made by somebody else, of another kind, of another bank."""
    with pytest.raises(NotProven):
        Quote.parse(bytes(statement))


@pytest.mark.parametrize(
    "statement",
    [
        replace(GOOD, signer=b"\xff\xff" + bytes(70)),
        replace(GOOD, extra=bytes(65)),
        replace(GOOD, clock=bytes(16) + b"\x02" + bytes(8)),
        replace(GOOD, selected=b"\xff\xff\xff\xff"),
        replace(GOOD, selected=b"\0\0\0\1\0\x0b\xff" + bytes(255)),
        replace(GOOD, selected=b"\0\0\0\2" + selection(1)[4:] * 2),
        replace(GOOD, digest=sized(bytes(65))),
        replace(GOOD, rest=b"\0"),
    ],
)
def test_a_hostile_quote_is_refused(statement: Statement) -> None:
    """Sizes that lie, a bank twice, more than there is."""
    with pytest.raises(BadConversation):
        Quote.parse(bytes(statement))


def test_a_signature_is_held_to_its_key_and_its_form() -> None:
    """Another statement, another key, another algorithm, a byte more, a number too long."""
    forged, said = Forged(), bytes(GOOD)
    key, signature = AttestationKey.parse(forged.area), forged.sign(said)
    key.check(said, signature)
    for statement, other in (
        (said + b"\0", signature),
        (said, Forged().sign(said)),
        (said, b"\x00\x14" + signature[2:]),
        (said, signature[:2] + b"\x00\x04" + signature[4:]),
        (said, signature + b"\0"),
        (said, signature[:-1]),
        (said, signature[:4] + sized(bytes(33)) * 2),
        (said, signature[:4] + sized(b"") * 2),
        (said, b""),
    ):
        with pytest.raises(Problem):
            key.check(statement, other)
