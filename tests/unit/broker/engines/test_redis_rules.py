"""What a role may say of a Redis, and the rules that are made of it."""

from __future__ import annotations

from typing import Any

import pytest

from broker.engines.redis import principal
from broker.engines.redis.rules import NEVER, role_settings
from broker.engines.redis.settings import Settings
from ca.errors import Malformed
from fakes.world import role


def rules(**said: Any) -> tuple[str, ...]:
    """What is made of a role's words."""
    return role_settings(role(engine="redis", settings=said)).rules()


def test_the_wall_stands_after_what_is_broad_and_before_what_is_named() -> None:
    """Redis reads the rules from left to right."""
    made = rules(keys=["a:*"], read_keys=["r"], write_keys=["w"], channels=["c"], commands=["+keys", "+@read", "-get"])
    assert made == ("~a:*", "%R~r", "%W~w", "&c", "+@read", "-@admin", "-@dangerous", "+keys", "-get")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"commands": []},
        {"commands": ["-get"]},
        {"commands": ["get"]},
        {"commands": ["+GET"]},
        {"commands": ["+get", "nopass"]},
        {"commands": ["on"]},
        {"commands": [">secret"]},
        {"commands": ["#" + "0" * 64]},
        {"commands": ["allcommands"]},
        {"commands": ["reset"]},
        {"commands": ["+get ~*"]},
        {"commands": ["+get\n"]},
        {"commands": ["(+get ~*)"]},
        {"commands": ["+@all"]},
        {"commands": ["+@admin"]},
        {"commands": ["+@dangerous"], "everything": True},
        {"commands": ["+@read|get"]},
        {"commands": ["+acl|setuser"]},
        {"commands": ["+config|get"]},
        {"commands": ["+client"]},
        {"commands": ["+client|kill"]},
        {"commands": ["+function|restore"]},
        *[{"commands": [f"+{name}"]} for name in sorted(NEVER)],
        {"commands": ["+get"], "keys": [""]},
        {"commands": ["+get"], "keys": ["a b"]},
        {"commands": ["+get"], "keys": ["a\nuser x on nopass"]},
        {"commands": ["+get"], "keys": ["ä"]},
        {"commands": ["+get"], "keys": ["a" * 201]},
        {"commands": ["+get"], "selectors": ["(+@all)"]},
    ],
)
def test_what_would_escape_is_refused(wrong: dict[str, Any]) -> None:
    """Before anything is intended."""
    with pytest.raises(Malformed, match="needs `commands`"):
        rules(**wrong)


@pytest.mark.parametrize("token", ["+acl|whoami", "+client|setname", "+cluster|slots", "+keys", "+flushdb", "+eval"])
def test_what_a_client_needs_can_be_named(token: str) -> None:
    """One command, by its name."""
    assert rules(commands=[token])[-1] == token


def test_everything_is_said_in_a_word_of_its_own() -> None:
    """And even then it holds no power over the server."""
    assert rules(keys=["*"], commands=["+@all"], everything=True) == ("~*", "+@all", "-@admin", "-@dangerous")


def test_a_name_at_the_limit() -> None:
    """80 characters of a few kinds."""
    assert principal.checked("a" * 80)
    for wrong in ("", "a" * 81, "A", "a b", "a\n", "ä"):
        with pytest.raises(Malformed):
            principal.checked(wrong)


@pytest.mark.parametrize(
    ("host", "node", "expected"), [("127.0.0.1", "::1", "off"), ("db", "::1", "verify"), ("::1", "db", "verify")]
)
def test_nobody_gets_our_password_because_an_operator_said_nothing(host: str, node: str, expected: str) -> None:
    """One node on the wire is enough."""
    said = {"kind": "redis", "host": host, "password": "env:P", "nodes": ({"host": node},)}
    assert Settings.model_validate(said).encryption == expected
