"""Proofs: who may speak for a task, and each proof once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from secrets import token_hex
from typing import Any

import pytest

from broker.model.caller import ALL_VERBS, Operator, Workload
from broker.model.ids import TaskId
from broker.service.proofs import Asked, Proofs, Shown, acting
from broker.wire.proof import FRESH, Proof, mint, new_key
from ca.errors import Denied, Exhausted, NotFound, Unauthenticated
from fakes.nouns import BILLING, INSTANCE, NOW, task

KEY = new_key()
KEYED = task(instance=None, key=KEY.thumbprint())


def asked(header: str | None = None, *, method: str = "POST", path: str = "/v1/x", **changed: Any) -> Asked:
    """A request by the task's owner, a minute before its leaf expires."""
    said = {"id": BILLING, "instance": None, "not_after": NOW + timedelta(minutes=1), **changed}
    now = said.pop("now", NOW)
    return Asked(caller=Workload(**said), shown=Shown(header=header, method=method, path=path), now=now)


def proven(proofs: Proofs, request: Asked) -> None:
    """As the gate does it."""
    proofs.demand(request, KEYED, proofs.read(request))


def test_a_proof_is_good_once_on_whichever_route() -> None:
    """The same header again is refused, and so is the same id in another proof of the key for another route."""
    proofs = Proofs()
    header = mint(KEY, "POST", "/v1/x", NOW)
    proven(proofs, asked(header))
    with pytest.raises(Unauthenticated, match="shown before"):
        proven(proofs, asked(header))
    with pytest.raises(Unauthenticated, match="another method or path"):
        proven(proofs, asked(header, path="/v1/y"))
    with pytest.raises(Unauthenticated, match="another method or path"):
        proven(proofs, asked(header, method="DELETE"))


def test_it_is_remembered_for_as_long_as_it_could_be_shown() -> None:
    """One made a minute ahead is fresh for two; afterwards it is not remembered and not fresh either."""
    proofs = Proofs()
    header = mint(KEY, "POST", "/v1/x", NOW + timedelta(seconds=60))
    proven(proofs, asked(header))
    for later in (1, 60, 119, 120):
        with pytest.raises(Unauthenticated):
            proven(proofs, asked(header, now=NOW + timedelta(seconds=later)))
    with pytest.raises(Unauthenticated, match="fresh"):
        proven(proofs, asked(header, now=NOW + timedelta(seconds=121)))


def test_who_shows_very_many_uses_up_its_own_places_only() -> None:
    """A flood with one key is stopped, another key's owner does not notice, and a minute later it is over."""
    proofs, other = Proofs(), new_key()
    for _ in range(5000):
        proofs.demand(asked(), KEYED, _shown(KEY, NOW))
    with pytest.raises(Exhausted):
        proofs.demand(asked(), KEYED, _shown(KEY, NOW))
    proofs.demand(asked(), task(instance=None, key=other.thumbprint()), _shown(other, NOW))
    later = NOW + timedelta(seconds=121)
    proofs.demand(asked(now=later), KEYED, _shown(KEY, later))


def _shown(key: Any, now: Any) -> Any:
    return Proof(thumbprint=key.thumbprint(), id=token_hex(8), good_until=now + 2 * FRESH)


def test_an_instance_proves_its_own_task_only() -> None:
    """Another one, none, and one of another trust domain don't; nor does the instance by name with another's key."""
    proofs, bound = Proofs(), task(instance=INSTANCE)
    proofs.demand(asked(instance=INSTANCE), bound, None)
    foreign = BILLING.parse("spiffe://foreign.test/agents/billing")
    for wrong in ({"instance": None}, {"instance": "f" * 32}, {"instance": INSTANCE, "id": foreign}):
        with pytest.raises(NotFound):
            proofs.demand(asked(**wrong), bound, None)


def test_a_task_without_a_key_is_proven_by_none() -> None:
    """No key is no wildcard."""
    request = asked(mint(KEY, "POST", "/v1/x", NOW))
    with pytest.raises(NotFound):
        Proofs().demand(request, task(instance=None), Proofs.read(request))


def test_an_operator_proves_nothing() -> None:
    """It has verbs instead."""
    request = Asked(
        caller=Operator(name="ada", verbs=ALL_VERBS), shown=Shown(header=None, method="GET", path="/"), now=NOW
    )
    with pytest.raises(Denied):
        Proofs().demand(request, KEYED, None)


def test_a_task_s_own_identity_proves_that_task_and_no_other_of_its_process() -> None:
    """Traps 17: what was given for one task speaks for it, as its owner, and for nothing beside it."""
    one, other = task(instance=INSTANCE), task(instance=INSTANCE)
    own = one.owner.trust_domain.member(f"/task/{one.id}")
    Proofs().demand(asked(id=own, instance=INSTANCE), one, None)
    assert acting(asked(id=own, instance=INSTANCE).workload, [one]).id == one.owner
    with pytest.raises(NotFound):
        Proofs().demand(asked(id=own, instance="f" * 32), one, None)
    beside = replace(other, id=TaskId("t" + "9" * 26))
    with pytest.raises(NotFound):
        Proofs().demand(asked(id=own, instance=INSTANCE), beside, None)
    assert acting(asked(id=own, instance=INSTANCE).workload, [beside]).id == own
