"""When streams are shown another revocation list."""

from __future__ import annotations

from datetime import timedelta

from attestor.node_agent.lists import QUIET, Lists
from fakes.clock import ManualClock
from fakes.issuer import FakeIssuer
from fakes.pki import NOON, TestAuthority
from fakes.revocations import make_list


def test_a_newer_list_waits_and_the_first_of_an_authority_does_not() -> None:
    """An Envoy refuses whatever a new authority signs until it has its list; T4 is about the many that follow."""
    one, two = TestAuthority(), TestAuthority()
    issuer, soon = FakeIssuer(one, ManualClock(NOON)), NOON + timedelta(seconds=1)
    lists = Lists(issuer)
    issuer.revocation_lists = (make_list(one, number=1),)
    assert lists.look(NOON)
    issuer.revocation_lists = (make_list(one, [7], number=2),)
    assert not lists.look(soon)
    issuer.revocation_lists = (make_list(one, [7], number=2), make_list(two, number=1))
    assert lists.look(soon)
    assert lists.shown == issuer.revocation_lists
    issuer.revocation_lists = (make_list(one, [7, 8], number=3), make_list(two, number=1))
    assert not lists.look(soon + QUIET - timedelta(microseconds=1))
    assert lists.look(soon + QUIET)
