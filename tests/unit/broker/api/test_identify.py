"""Whether a caller is still who it was: asked on every request and on every write of a stream."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.api.identify import still
from broker.model.caller import ALL_VERBS, Operator, Verb, Workload
from broker.service import operators
from broker.service.operators import KnownOperators
from broker.service.proofs import Asked, Shown
from ca.errors import Denied, Malformed, Unauthenticated
from ca.spiffe.bundle import BundleSet
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import Revoked, verify
from fakes.front import OPERATOR, Front, front
from fakes.pki import SelfSigned, TestAuthority, der_chain
from fakes.revocations import make_list


def pem(name: str, house: Front, hours: int = 1) -> str:
    """A certificate of a person's own."""
    return SelfSigned.make(name, house.clock.now(), timedelta(hours=hours)).chain_pem().decode()


def by(house: Front, operator: Operator = OPERATOR) -> Asked:
    """An operator's request."""
    return Asked(caller=operator, shown=Shown(header=None, method="POST", path="/v1"), now=house.clock.now())


async def test_an_operator_is_one_until_its_certificate_ends_or_it_is_removed(tmp_path: Path) -> None:
    """On a connection that stays open, too."""
    async with front(tmp_path) as house:
        known = KnownOperators()
        recheck = still(house.clock, house.house.observer, known)
        ada, eve = [
            await operators.add(house.gate, by(house), name, pem(name, house, hours), [Verb.READ_TASKS], known)
            for name, hours in (("ada", 1), ("eve", 24))
        ]
        await recheck(ada)
        await house.clock.advance(3600)
        with pytest.raises(Unauthenticated):
            await recheck(ada)
        await recheck(eve)
        await operators.remove(house.gate, by(house), "eve", known)
        with pytest.raises(Unauthenticated):
            await recheck(eve)


async def test_a_workload_its_issuer_took_back_is_one_no_more(tmp_path: Path) -> None:
    """As soon as a list says so, on the connection it has."""
    async with front(tmp_path) as house:
        authority = TestAuthority(now=house.clock.now())
        chain = der_chain(authority.leaf("/agents/billing").chain)
        peer = verify(chain, BundleSet.of(authority.bundle()), house.clock.now())
        lists = [RevocationLists()]
        recheck = still(house.clock, house.house.observer, KnownOperators(), lambda: lists[0])
        caller = Workload(id=peer.id, instance=None, not_after=peer.not_after, peer=peer)
        await recheck(caller)
        lists[0] = RevocationLists.of([make_list(authority, [peer.serial], now=house.clock.now())])
        with pytest.raises(Revoked):
            await recheck(caller)


async def test_nobody_gives_a_verb_it_has_not(tmp_path: Path) -> None:
    """And an SVID makes nobody an operator."""
    async with front(tmp_path) as house:
        meek, known = Operator(name="meek", verbs=frozenset({Verb.MANAGE_OPERATORS})), KnownOperators()
        with pytest.raises(Denied, match="which it has not"):
            await operators.add(house.gate, by(house, meek), "bob", pem("bob", house), sorted(ALL_VERBS), known)
        svid = TestAuthority(now=house.clock.now()).leaf("/agents/billing").chain_pem().decode()
        with pytest.raises(Malformed, match="SVID"):
            await operators.add(house.gate, by(house), "bob", svid, [Verb.READ_TASKS], known)
        assert await operators.listed(house.gate, by(house)) == []
