"""Nobody on the way to a target gets our password because an operator said nothing."""

from __future__ import annotations

import pytest

from broker.engines.postgres.settings import Settings
from ca.runtime.secret import Reference


def said(host: str, **more: object) -> Settings:
    """Settings with nothing said of `tls`, unless in `more`."""
    whole = {"host": host, "database": "d", "user": "u", "password": Reference("env", "P"), **more}
    return Settings.model_validate(whole)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_loopback_address_needs_no_tls(host: str) -> None:
    """Nothing passes a wire."""
    assert said(host).encryption == "off"


@pytest.mark.parametrize("host", ["db", "localhost", "10.0.0.7", "127.0.0.1.example.org", "0.0.0.0"])
def test_everything_else_is_verified(host: str) -> None:
    """A name may lead anywhere, whatever it looks like."""
    assert said(host).encryption == "verify"
    assert said(host).endpoints()[0].tls is not False


def test_one_standby_on_the_wire_is_enough() -> None:
    """All endpoints are spoken to alike."""
    assert said("127.0.0.1", standbys=({"host": "db-standby"},)).encryption == "verify"


def test_an_operator_s_word_stands() -> None:
    """`off` is a choice when it is made."""
    assert said("db", tls="off").endpoints()[0].tls is False
