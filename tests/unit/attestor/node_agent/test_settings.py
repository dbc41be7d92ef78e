"""What settings of the node agent refuse before anything is begun."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from attestor.node_agent.settings import EnvoySettings, SpiffeBrokerApiSettings
from attestor.wire.spiffe_broker import PodReference, ProcessReference
from ca.spiffe.id import SpiffeId

GATEWAY = {"spiffe_id": "spiffe://example.org/gateway", "references": ("pid", "kubernetes")}
SOCKET = "unix:///run/sojourn/spiffe-broker.sock"


@pytest.mark.parametrize("endpoint", [SOCKET, "tcp://127.0.0.1:8082", "tcp://[::1]:8082"])
def test_who_may_use_the_broker_api(endpoint: str) -> None:
    """By exact SPIFFE ID, each with its kinds."""
    settings = SpiffeBrokerApiSettings.model_validate({"endpoint": endpoint, "allow": (GATEWAY,)})
    gateway = SpiffeId.parse("spiffe://example.org/gateway")
    assert settings.allowed() == {gateway: frozenset({ProcessReference, PodReference})}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"endpoint": SOCKET, "allow": ()}, "at least 1"),
        ({"endpoint": SOCKET}, "allow"),
        ({"endpoint": SOCKET, "allow": (GATEWAY, GATEWAY)}, "twice"),
        ({"endpoint": SOCKET, "allow": ({**GATEWAY, "references": ()},)}, "at least 1"),
        ({"endpoint": SOCKET, "allow": ({**GATEWAY, "references": ("all",)},)}, "kubernetes"),
        ({"endpoint": SOCKET, "allow": ({**GATEWAY, "spiffe_id": "spiffe://example.org/**"},)}, "spiffe_id"),
        ({"endpoint": "tcp://0.0.0.0:8082", "allow": (GATEWAY,)}, "another machine"),
        ({"endpoint": "tcp://node:8082", "allow": (GATEWAY,)}, "another machine"),
        ({"endpoint": "tcp://127.0.0.1:8082", "group": 5, "allow": (GATEWAY,)}, "about a socket"),
        ({"endpoint": "unix:relative", "allow": (GATEWAY,)}, "endpoint"),
    ],
)
def test_what_makes_no_sense_for_the_broker_api(wrong: dict[str, Any], why: str) -> None:
    """A process number from afar (BR-12), nobody, everybody, one twice."""
    with pytest.raises(ValidationError, match=why.replace("*", "\\*")):
        SpiffeBrokerApiSettings.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"default_svid_name": "ALL"},
        {"default_bundle_name": "default"},
        {"default_all_bundles_name": "spiffe://example.org"},
        {"default_svid_name": ""},
        {"disable_spiffe_cert_validation": True},
    ],
)
def test_names_of_secrets_that_collide(wrong: dict[str, Any]) -> None:
    """A validation context must never be taken for a certificate."""
    with pytest.raises(ValidationError):
        EnvoySettings.model_validate(wrong)
