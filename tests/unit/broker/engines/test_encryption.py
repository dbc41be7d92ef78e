"""What is safe without a word, and what a word asks for."""

from __future__ import annotations

import ssl

import pytest

from broker.engines.encryption import Encryption, chosen, context


@pytest.mark.parametrize(
    ("said", "hosts", "expected"),
    [
        (None, ["127.0.0.1", "::1"], "off"),
        (None, ["127.0.0.1", "db"], "verify"),
        (None, ["localhost"], "verify"),
        (None, ["127.0.0.1.example.org"], "verify"),
        ("off", ["db"], "off"),
        ("require", ["127.0.0.1"], "require"),
    ],
)
def test_off_follows_only_where_nothing_passes_a_wire(
    said: Encryption | None, hosts: list[str], expected: Encryption
) -> None:
    """A name may lead anywhere, whatever it looks like; an operator's word stands."""
    assert chosen(said, hosts) == expected


def test_only_require_takes_any_certificate() -> None:
    """`verify` checks chain and name."""
    verify, require = context("verify", None), context("require", None)
    assert context("off", None) is None
    assert verify is not None
    assert (verify.check_hostname, verify.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert require is not None
    assert (require.check_hostname, require.verify_mode) == (False, ssl.CERT_NONE)
