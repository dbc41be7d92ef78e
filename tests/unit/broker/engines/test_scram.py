"""Verifiers, made by us."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.engines import load
from broker.engines.postgres import principal
from broker.engines.postgres.scram import ROUNDS, verifier
from ca.errors import Malformed


@pytest.mark.parametrize("rounds", ROUNDS.values())
def test_a_verifier_verifies_and_is_not_the_password(rounds: int) -> None:
    """RFC 5802: StoredKey = H(HMAC(SaltedPassword, "Client Key")), with a salt of its own each time."""
    text = verifier("correct horse", rounds)
    kind, count_salt, keys = text.split("$")
    count, salt = count_salt.split(":")
    stored, server = keys.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", b"correct horse", base64.b64decode(salt), int(count))
    client = hmac.digest(salted, b"Client Key", "sha256")
    assert (kind, int(count)) == ("SCRAM-SHA-256", rounds)
    assert base64.b64decode(stored) == hashlib.sha256(client).digest()
    assert base64.b64decode(server) == hmac.digest(salted, b"Server Key", "sha256")
    assert "correct horse" not in text
    assert verifier("correct horse", rounds) != text


@pytest.mark.parametrize("name", ["", "a" * 64, "ä" * 32, "a\0b"])
def test_a_name_postgresql_would_cut_or_refuse_is_refused(name: str) -> None:
    """Two long names must never become one."""
    with pytest.raises(Malformed):
        principal.identifier(name)


def test_quoting_holds_what_it_quotes() -> None:
    """A name can't end the quotes it stands in."""
    assert principal.identifier('x"; DROP ROLE "y') == '"x""; DROP ROLE ""y"'
    assert principal.literal("it's") == "'it''s'"
    with pytest.raises(RuntimeError):
        principal.literal("back\\slash")


def test_a_moment_is_written_in_utc() -> None:
    """Whatever zone it came in."""
    local = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert principal.moment(local) == principal.moment(datetime(2026, 1, 1, tzinfo=UTC))


def test_an_unknown_kind_is_refused() -> None:
    """With the known ones."""
    with pytest.raises(Malformed, match="postgres"):
        load("oracle")
