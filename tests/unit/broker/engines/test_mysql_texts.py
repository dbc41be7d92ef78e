"""What is sent to MySQL and MariaDB, and what is never let into a statement."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.engines.mysql import principal
from broker.engines.mysql.settings import PRIVILEGES, Settings, role_settings
from broker.engines.mysql.verifiers import _sha256_crypt, ed25519, identified, native, password_for, sha2
from ca.errors import Malformed
from fakes.world import role

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_native_is_what_the_server_makes() -> None:
    """A published value."""
    assert native("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"


def test_sha2_is_what_the_server_makes() -> None:
    """The example of hashcat's mode 7401, and what libcrypt answers for `$5$saltstring`."""
    salt = bytes.fromhex("F9CC98CE08892924F50A213B6BC571A2C11778C5")
    published = "625479393559393965414D45316477456B484F41316E64484742577A2E3162785353526B7554584647562F"
    assert _sha256_crypt(b"hashcat", salt).encode().hex().upper() == published
    assert _sha256_crypt(b"Hello world!", b"saltstring") == "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"


def test_sha2_has_the_form_of_mysql() -> None:
    """Seven characters, twenty of salt without a `$` or a quote, forty-three."""
    text = sha2("x" * 47)
    assert (text[:7], len(text)) == ("$A$005$", 70)
    assert text[7:27].isalnum()
    assert sha2("x" * 47) != text


def test_ed25519_is_the_public_key_of_the_password() -> None:
    """Any library signs with it."""
    password = password_for("ed25519")
    assert len(password.encode()) == 32
    text = ed25519(password)
    assert len(text) == 43
    assert Ed25519PublicKey.from_public_bytes(base64.b64decode(text + "="))
    with pytest.raises(ValueError, match="32"):
        ed25519("short")


@pytest.mark.parametrize("kind", ["native", "ed25519", "sha2"])
def test_no_clause_holds_the_password(kind: str) -> None:
    """Only its verifier is sent."""
    password = password_for(kind)
    assert password not in identified(kind, password)


@pytest.mark.parametrize("name", ["", "a" * 33, "A", "a-b", "a'b", "a`b", "a\\b", "ä", "a\0b", "a\n"])
def test_a_name_the_server_would_cut_or_misread_is_refused(name: str) -> None:
    """32 characters of a few kinds."""
    with pytest.raises(Malformed):
        principal.checked(name)


def test_quoting_holds_what_it_quotes() -> None:
    """Under NO_BACKSLASH_ESCAPES a backslash is a backslash."""
    assert principal.literal("it's \\") == "'it''s \\'"
    assert principal.identifier("a`b") == "`a``b`"
    assert principal.account("a", "10.0.0.%'") == "'a'@'10.0.0.%'''"
    with pytest.raises(RuntimeError):
        principal.literal("a\0b")


def test_the_name_of_a_schema_is_no_pattern() -> None:
    """`_` would match every character in a grant on a whole schema; in one on a table it does not."""
    assert principal.scope("my_shop") == "`my\\_shop`.*"
    assert principal.scope("my_shop.an_order") == "`my_shop`.`an_order`"


def test_it_is_unlocked_last() -> None:
    """Whatever dies in between leaves a user that can't log in."""
    granted = principal.grants("sj_a", "readers", {"shop": ("SELECT",)}, mariadb=True)
    text = principal.create("sj_a", native_clause(), deadline=NOON, granted=granted, sessions=3, tls=True, mariadb=True)
    lines = text.split(";\n")
    assert "ACCOUNT LOCK" in lines[0]
    assert "REQUIRE SSL WITH MAX_USER_CONNECTIONS 3" in lines[0]
    assert lines[-1] == "ALTER USER 'sj_a'@'%' ACCOUNT UNLOCK"
    assert lines[-2] == "SET DEFAULT ROLE `readers` FOR 'sj_a'@'%'"
    mysql = principal.grants("sj_a", "readers", {}, mariadb=False)
    assert mysql == ["GRANT `readers` TO 'sj_a'@'%'", "SET DEFAULT ROLE `readers` TO 'sj_a'@'%'"]


def native_clause() -> str:
    """Any."""
    return identified("native", "x")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"role": ""},
        {"role": "a`b"},
        {"role": "NONE"},
        {"role": "r", "x": 1},
        {"privileges": {}},
        {"privileges": {"shop": []}},
        {"privileges": {"shop": ["ALL"]}},
        {"privileges": {"shop": ["GRANT OPTION"]}},
        {"privileges": {"shop": ["SELECT, FILE"]}},
        {"privileges": {"shop": ["SELECT ON *.* TO x; --"]}},
        {"privileges": {"*": ["SELECT"]}},
        {"privileges": {"*.*": ["SELECT"]}},
        {"privileges": {"sh%p": ["SELECT"]}},
        {"privileges": {"a.b.c": ["SELECT"]}},
        {"privileges": {"a.": ["SELECT"]}},
        {"privileges": {"mysql": ["SELECT"]}},
        {"privileges": {"MySQL.user": ["SELECT"]}},
        {"privileges": {"a`.*TO x;": ["SELECT"]}},
        {"role": "r", "secret_kind": "plain"},
        {"role": "r", "sessions": 0},
    ],
)
def test_a_role_that_makes_no_sense_or_would_escape_is_refused(wrong: dict[str, Any]) -> None:
    """Before anything is intended."""
    with pytest.raises(Malformed, match="needs `role` or `privileges`"):
        role_settings(role(engine="mysql", settings=wrong))


def test_a_role_may_list_what_leaves_nothing_behind() -> None:
    """In any case of letters; said in capitals."""
    said = role_settings(
        role(engine="mysql", settings={"privileges": {"a.b-c": [word.lower() for word in PRIVILEGES]}})
    )
    assert said.privileges == {"a.b-c": PRIVILEGES}


@pytest.mark.parametrize(
    ("host", "replica", "expected"),
    [("127.0.0.1", "::1", "off"), ("db", "127.0.0.1", "verify"), ("::1", "db", "verify")],
)
def test_nobody_gets_our_password_because_an_operator_said_nothing(host: str, replica: str, expected: str) -> None:
    """One endpoint on the wire is enough."""
    said = {"kind": "mysql", "host": host, "user": "u", "password": "env:P", "replicas": ({"host": replica},)}
    settings = Settings.model_validate(said)
    assert settings.encryption == expected
    assert all((at.tls is None) == (expected == "off") for at in settings.endpoints(settings.password.read))
