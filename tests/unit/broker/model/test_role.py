"""Guarantees in their JSON form."""

from __future__ import annotations

from dataclasses import replace

from broker.model.role import Guarantee, NewAccess
from fakes.nouns import AT_ONCE, role


def test_json_there_and_back() -> None:
    """A guarantee survives its JSON form, bounds and their absence included."""
    for guarantee in (AT_ONCE, replace(AT_ONCE, new_access_within=None, if_down_within=None)):
        assert Guarantee.from_json(guarantee.to_json()) == guarantee
    assert replace(AT_ONCE, new_access_within=None).to_json()["new_access"]["within"] == "unbounded"


def test_only_what_ends_at_once_can_be_revoked() -> None:
    """Everything else closes as expired."""
    assert [one for one in NewAccess if replace(AT_ONCE, new_access=one).revocable] == [NewAccess.AT_ONCE]


def test_a_role_is_called_by_target_and_name() -> None:
    """The name scopes and policies use."""
    assert role("orders-db/readonly").full_name == "orders-db/readonly"
