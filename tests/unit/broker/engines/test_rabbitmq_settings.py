"""What a role may say to RabbitMQ, and what is never let out of its anchors."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from broker.engines.rabbitmq import principal
from broker.engines.rabbitmq.settings import Settings, anchored, check_pattern, role_settings
from ca.errors import Malformed
from fakes.world import role

FACTS = {"management": "https://mq.example.org:15671", "user": "u", "password": "env:P", "host": "mq.example.org"}


def said(**rights: Any) -> Any:
    """The settings of a role with one line of permissions."""
    more = {key: rights.pop(key) for key in ("everything", "topics", "sessions") if key in rights}
    return role(engine="rabbitmq", settings={"permissions": [{"vhost": "/", **rights}], **more})


@pytest.mark.parametrize(
    "pattern",
    [
        "a)|(b",
        "a)|(?:.*",
        "(?i)a",
        "(?#",
        "(*ACCEPT)",
        "a\\z|.*",
        "\\Qa\\E",
        "a\nb",
        "a\0",
        "[[:alpha:]]",
        "(",
        "[",
        "a{2,1}",
        "*",
        "a\\",
        "ä",
        "a" * 201,
    ],
)
def test_what_could_leave_its_group_is_refused(pattern: str) -> None:
    """Here and in PCRE it must be one and the same thing."""
    with pytest.raises(Malformed):
        check_pattern(pattern)
    with pytest.raises(Malformed):
        role_settings(said(read=pattern, everything=True))


@pytest.mark.parametrize("pattern", [".*", "^.*$", ".+", "(.*)", "a|.*", "[^ ]+", "^", ".*\\..*", "|"])
def test_everything_must_be_meant(pattern: str) -> None:
    """A pattern that matches any name is refused without a word beside it."""
    if not re.search(anchored(pattern).replace("\\z", "\\Z"), "zq7-f0c1_e9b5.a4d2"):
        assert role_settings(said(write=pattern))
        return
    with pytest.raises(Malformed):
        role_settings(said(write=pattern))
    assert role_settings(said(write=pattern, everything=True)).everything


def test_a_pattern_is_of_whole_names() -> None:
    """No pattern is no name, not any."""
    assert anchored("orders|events") == r"\A(?:orders|events)\z"
    assert anchored("") == "^$"
    assert role_settings(said(read="orders(-[0-9]+)?")).permissions[0].configure == ""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"permissions": []},
        {"permissions": [{"vhost": "/"}, {"vhost": "/"}]},
        {"permissions": [{"vhost": ""}]},
        {"permissions": [{"vhost": "/", "reed": "a"}]},
        {"permissions": [{"vhost": "/"}], "topics": [{"vhost": "b", "exchange": "x"}]},
        {"permissions": [{"vhost": "/"}], "sessions": 0},
        {"permissions": "all"},
    ],
)
def test_what_is_not_a_role_is_refused(settings: dict[str, Any]) -> None:
    """With a sentence that says what is expected."""
    with pytest.raises(Malformed, match="needs `permissions`"):
        role_settings(role(engine="rabbitmq", settings=settings))


@pytest.mark.parametrize(
    "address",
    [
        "http://mq.example.org:15672",
        "http://localhost:15672",
        "https://u:p@mq.example.org:15671",
        "https://mq.example.org:15671/?a=b",
        "ftp://127.0.0.1:1",
        "mq.example.org",
        "",
    ],
)
def test_our_password_is_sent_to_nobody_unverified(address: str) -> None:
    """Plain HTTP only at an address on loopback; `localhost` is what a resolver makes of it."""
    with pytest.raises(ValueError, match="management"):
        Settings.model_validate({**FACTS, "management": address})


def test_addresses_and_ports_that_are_meant() -> None:
    """Agents speak TLS unless they are beside us."""
    far = Settings.model_validate(FACTS)
    near = Settings.model_validate({**FACTS, "management": "http://127.0.0.1:15672/mq/", "host": "127.0.0.1"})
    assert (far.encryption, far.amqp_port, str(far.management)) == ("verify", 5671, "https://mq.example.org:15671/")
    assert (near.encryption, near.amqp_port, str(near.management)) == ("off", 5672, "http://127.0.0.1:15672/mq/")


def test_the_server_is_sent_a_salted_hash() -> None:
    """RabbitMQ's own form, with another salt each time."""
    body = principal.hashed("secret")
    value = base64.b64decode(body["password_hash"])
    assert value[4:] == hashlib.sha256(value[:4] + b"secret").digest()
    assert body["hashing_algorithm"] == "rabbit_password_hashing_sha256"
    assert principal.hashed("secret") != body
