"""Secrets, leases, decisions, events and receipts as asked and told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from broker.audit.chain import Head, after
from broker.audit.verify import verify
from broker.model.act import Action
from broker.model.decision import Decision, Effect
from broker.model.event import Epoch, Event, EventKind
from broker.model.ids import new_decision
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.scope import Sensitivity
from broker.wire.audit import EntryPage, EntryTold
from broker.wire.credentials import AskCredential, CredentialTold
from broker.wire.decisions import AskDecision, DecisionTold
from broker.wire.events import Confirm, EventLine
from broker.wire.leases import GuaranteeTold, LeaseTold, RenewLease
from broker.wire.roles import RoleTold
from ca.errors import Malformed
from ca.runtime.secret import Secret
from fakes.nouns import AT_ONCE, NOW, lease, role, task

DECISION = Decision(
    id=new_decision(NOW),
    effect=Effect.PERMIT,
    policies=("billing.orders",),
    reason="billing agents may use the orders database",
    policy_version="ab" * 32,
    decided_at=NOW,
    nearest=(),
)


def test_the_answer_that_holds_a_secret() -> None:
    """It is shown as JSON and nowhere else; a client gets it back as a `Secret`."""
    told = CredentialTold.of(
        lease(task()), {"host": "db", "port": 5432}, {"password": Secret("hunter2")}, decision=DECISION
    )
    assert "hunter2" not in f"{told!r} {told} {told.model_dump()} {told.lease!r}"
    read = CredentialTold.model_validate_json(told.model_dump_json())
    assert read.secret["password"].reveal() == "hunter2"
    assert read.fields == {"host": "db", "port": 5432}
    assert read.ack_by == lease(task()).ack_by


def test_an_act_is_what_was_asked_of_the_role_that_is() -> None:
    """The role's own sensitivity is the broker's; what the agent says stands beside it as its claim."""
    ask = AskCredential.model_validate_json(
        '{"role":"orders-db/readonly","sensitivity":"restricted","confidence":80,"destination":"house/mail","ttl":"5m"}'
    )
    act = ask.to_act(role())
    assert (act.action, act.resource, act.confidence, act.destination) == (
        Action.OBTAIN,
        "orders-db/readonly",
        80,
        "house/mail",
    )
    assert (act.sensitivity, act.claimed_sensitivity) == (Sensitivity.INTERNAL, Sensitivity.RESTRICTED)
    assert AskCredential(role="a/b").to_act(role("a/b")).confidence == 0


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (AskCredential, {"role": "orders-db/*"}),
        (AskCredential, {"role": "*"}),
        (AskCredential, {"role": "a/../b"}),
        (AskCredential, {"role": "a/b", "confidence": 101}),
        (AskCredential, {"role": "a/b", "confidence": 0.9}),
        (AskCredential, {"role": "a/b", "confidence": -1}),
        (AskCredential, {"role": "a/b", "ttl": "0s"}),
        (AskCredential, {"role": "a/b", "strength": "tpm"}),
        (RenewLease, {"ttl": "1m"}),
        (AskDecision, {"task": "x", "resource": "sql"}),
        (AskDecision, {"task": task().id, "resource": "sql", "arguments_digest": "abc"}),
        (AskDecision, {"task": task().id, "resource": "sql", "action": "destroy"}),
        (Confirm, {"incarnation": "a.b", "n": 1}),
        (Confirm, {"incarnation": "", "n": 1}),
        (Confirm, {"incarnation": "abc", "n": -1}),
        (Confirm, {"incarnation": "abc", "n": 1 << 53}),
    ],
)
def test_what_may_not_be_asked(model: type[BaseModel], value: dict[str, Any]) -> None:
    """A prefix is no role, no claim is out of its range, and nobody states their own strength."""
    with pytest.raises(ValidationError):
        model.model_validate_json(json.dumps(value))


def test_a_lease_as_told() -> None:
    """It survives its JSON form, and so does its guarantee as a value."""
    told = LeaseTold.of(replace(lease(task()), trouble="the target does not answer"))
    assert LeaseTold.model_validate_json(told.model_dump_json()) == told
    assert told.guarantee.to_guarantee() == AT_ONCE
    unbounded = replace(AT_ONCE, open_sessions_within=None)
    assert GuaranteeTold.model_validate_json(GuaranteeTold.of(unbounded).model_dump_json()).to_guarantee() == unbounded


def test_a_role_as_told() -> None:
    """With its guarantee, without its settings."""
    told = RoleTold.of(role(settings={"groups": ["readers"]}), AT_ONCE)
    assert "readers" not in told.model_dump_json()
    assert RoleTold.model_validate_json(told.model_dump_json()) == told


def test_a_decision_as_asked_and_told() -> None:
    """The act has the sensitivity the broker knows; the answer survives its JSON form."""
    ask = AskDecision.model_validate_json(
        json.dumps({"task": task().id, "resource": "sql", "destination": "house/mail"})
    )
    act = ask.to_act(Sensitivity.RESTRICTED)
    assert (act.action, act.resource, act.sensitivity) == (Action.USE, "sql", Sensitivity.RESTRICTED)
    told = DecisionTold.of(DECISION)
    assert DecisionTold.model_validate_json(told.model_dump_json()) == told


def test_an_event_as_told() -> None:
    """There and back; one that isn't durable yet is not told."""
    of = task()
    event = Event(kind=EventKind.TASK_ENDED, at=NOW, task=of.id, root=of.root, body={"reason": "deadline"})
    with pytest.raises(RuntimeError):
        EventLine.of(event)
    written = replace(event, epoch=Epoch("abc", 7))
    line = EventLine.model_validate_json(EventLine.of(written).model_dump_json())
    assert line.to_event() == written
    assert Confirm(incarnation="abc", n=7).epoch == written.epoch


def test_receipts_as_told_can_be_verified_by_a_stranger() -> None:
    """What comes over the wire still hashes; what can't be read is refused."""
    first = after(Head.empty("broker-1"), Receipt(kind=ReceiptKind.DECIDED, at=NOW, actor="a", body={"n": 1}))
    second = after(Head.of(first), Receipt(kind=ReceiptKind.LEASE_CLOSED, at=NOW, actor="a", lease=lease(task()).id))
    page = EntryPage.model_validate_json(EntryPage(items=[EntryTold.of(first), EntryTold.of(second)]).model_dump_json())
    assert verify(told.to_entry() for told in page.items) == Head.of(second)
    forged = EntryTold.model_validate({**EntryTold.of(first).model_dump(), "receipt": {"kind": "decided"}})
    with pytest.raises(Malformed):
        forged.to_entry()
