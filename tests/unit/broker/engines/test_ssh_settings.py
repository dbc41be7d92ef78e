"""What a role may say to hosts: what would end up in a certificate's options is looked at first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.engines.ssh.settings import Settings, role_settings
from ca.errors import Malformed
from fakes.world import role


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"principals": []},
        {"principals": ["a,b"]},
        {"principals": ["-oProxyCommand=x"]},
        {"principals": ["a b"]},
        {"principals": ["*"]},
        {"principals": ["a\n"]},
        {"principals": ["a"], "force_command": ""},
        {"principals": ["a"], "force_command": "a\nb"},
        {"principals": ["a"], "force_command": "a\0"},
        {"principals": ["a"], "source_addresses": ["10.1.2.3/8"]},
        {"principals": ["a"], "source_addresses": ["10.0.0.0/8,0.0.0.0/0"]},
        {"principals": ["a"], "source_addresses": ["example.org"]},
        {"principals": ["a"], "permit": ["permit-pty"]},
        {"principals": ["a"], "permit": ["everything"]},
        {"principals": ["a"], "command": "x"},
    ],
)
def test_what_is_not_a_role_is_refused(settings: dict[str, Any]) -> None:
    """With a sentence that says what is expected."""
    with pytest.raises(Malformed, match="needs `principals`"):
        role_settings(role(engine="ssh", settings=settings))


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(minutes=15, seconds=1), timedelta(hours=8)])
def test_no_certificate_lives_longer_than_its_sessions_are_worth(ttl: timedelta) -> None:
    """Fifteen minutes at most."""
    with pytest.raises(Malformed, match="15m at most"):
        role_settings(role(engine="ssh", ttl=ttl, settings={"principals": ["a"]}))


def test_nothing_is_permitted_that_was_not_said() -> None:
    """Neither options nor extensions."""
    bare = role_settings(role(engine="ssh", settings={"principals": ["a"]})).allowed()
    assert (bare.options, bare.extensions) == ({}, [])
    said = {"principals": ["a", "b"], "force_command": "id", "source_addresses": ["10.0.0.0/8", "::1"]}
    more = role_settings(role(engine="ssh", settings={**said, "permit": ["x11-forwarding"]})).allowed()
    assert more.options == {"force-command": "id", "source-address": "10.0.0.0/8,::1/128"}
    assert more.extensions == ["permit-X11-forwarding"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "a b"},
        {"host": ""},
        {"host": "a\n"},
        {"host": "a", "port": 0},
        {"host": "a", "revocations": ("relative",)},
        {"host": "a", "revocations": ("/",)},
        {"host": "a", "host_keys": ("ssh-ed25519 AAAA\nb ssh-rsa AAAA",)},
        {"host": "a", "host_keys": ("@cert-authority * ssh-ed25519 " + "A" * 60,)},
    ],
)
def test_what_agents_are_told_is_looked_at(wrong: dict[str, Any]) -> None:
    """It ends up in their known hosts."""
    with pytest.raises(ValueError, match="Settings"):
        Settings.model_validate(wrong)
