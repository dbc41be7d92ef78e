"""Bodies of /v1/tasks."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey
from pydantic import ValidationError

from broker.model.report import Report
from broker.model.scope import Budget, Sensitivity, patterns
from broker.model.task import EndReason, TaskEvent, TaskState
from broker.wire import proof
from broker.wire.reports import ReportTold
from broker.wire.tasks import EndTask, Heartbeat, OpenTask, PublicKey, ScopeBody, StateChange, TaskTold, TaskTree
from fakes.nouns import NOW, lease, scope, task

KEY = proof.new_key()
JWK = KEY.as_dict(private=False)


def _jwk() -> dict[str, Any]:
    return {name: JWK[name] for name in ("kty", "crv", "x", "y")}


def _open(**changed: Any) -> OpenTask:
    return OpenTask.model_validate_json(json.dumps({"purpose": "reconcile november", **changed}))


def test_a_whole_request() -> None:
    """Everything that may be said, read into values."""
    ask = _open(
        scope={"roles": ["orders-db/*"], "tools": ["sql"], "sensitivity": "internal", "budget": {"secrets": 3}},
        lasts="10m",
        heartbeat="30s",
    )
    assert ask.scope.to_scope() == scope(
        "orders-db/*", tools=patterns(["sql"]), sensitivity=Sensitivity.INTERNAL, budget=Budget(secrets=3)
    )
    assert ask.ends_at(NOW) == NOW + timedelta(minutes=10)
    assert ask.heartbeat == timedelta(seconds=30)
    assert ask.bind
    assert _open(deadline="2026-11-23T13:00:00Z").ends_at(NOW) == NOW + timedelta(hours=1)
    assert _open().ends_at(NOW) is None


def test_what_is_not_said_reaches_nothing() -> None:
    """The empty scope, public at most."""
    assert _open().scope.to_scope() == ScopeBody().to_scope()
    assert not _open().scope.to_scope().allows_role("orders-db/readonly")


@pytest.mark.parametrize(
    "changed",
    [
        {"purpose": ""},
        {"purpose": "x" * 501},
        {"purpose": "pay\u202eyap"},
        {"purpose": "one\ntwo"},
        {"purpose": None},
        {"scope": {"roles": ["a*"]}},
        {"scope": {"roles": "a/*"}},
        {"scope": {"roles": [f"r{number}" for number in range(257)]}},
        {"scope": {"sensitivity": "secret"}},
        {"scope": {"rolls": []}},
        {"scope": {"budget": {"secrets": -1}}},
        {"lasts": "10m", "deadline": "2026-11-23T13:00:00Z"},
        {"lasts": "0s"},
        {"lasts": 600},
        {"heartbeat": "0s"},
        {"deadline": "2026-11-23T13:00:00"},
        {"deadline": 1769860800},
        {"parent": "l" + "0" * 26},
        {"bind": "yes"},
        {"bind": False},
        {"bind": False, "lasts": "10m"},
        {"bind": False, "key": _jwk()},
        {"owner": "spiffe://example.org/somebody-else"},
    ],
)
def test_what_may_not_be_said(changed: dict[str, Any]) -> None:
    """Each limit, each contradiction, each unknown key."""
    with pytest.raises(ValidationError):
        _open(**changed)


def test_an_unbound_task_brings_a_key_and_an_end() -> None:
    """Its thumbprint is the one a proof by that key will show."""
    ask = _open(bind=False, lasts="10m", key=_jwk())
    assert ask.key is not None
    shown = proof.verify(proof.mint(KEY, "GET", "/v1/tasks", NOW), "GET", "/v1/tasks", NOW)
    assert ask.key.thumbprint == shown.thumbprint == ECKey.import_key(_jwk()).thumbprint()


@pytest.mark.parametrize(
    "changed",
    [
        {"d": "AAAA"},
        {"crv": "P-384"},
        {"kty": "RSA"},
        {"x": "A" * 42},
        {"x": "A" * 44},
        {"x": "A" * 42 + "="},
        {"x": "A" * 42 + "B"},
        {"x": "*" * 43},
    ],
)
def test_a_key_is_public_and_has_one_spelling(changed: dict[str, Any]) -> None:
    """A private key is refused unheard, and no second spelling of a coordinate gives one key two thumbprints."""
    with pytest.raises(ValidationError) as raised:
        PublicKey.model_validate_json(json.dumps({**_jwk(), **changed}))
    assert "AAAA" not in str(raised.value)


def test_moves_and_endings_are_events_of_the_table() -> None:
    """`wait`, `resume`, `narrow` with its scope; `done`, `failed`, `cancelled`. Nothing else."""
    assert StateChange.model_validate_json('{"event":"wait"}').event is TaskEvent.WAIT
    narrow = StateChange.model_validate_json('{"event":"narrow","scope":{"roles":["a/b"]}}')
    assert narrow.event is TaskEvent.NARROW
    assert [EndTask(outcome=one).event for one in ("done", "failed", "cancelled")] == [
        TaskEvent.FINISH,
        TaskEvent.FAIL,
        TaskEvent.CANCEL,
    ]
    for text in ('{"event":"finish"}', '{"event":"narrow"}', '{"event":"wait","scope":{}}', '{"event":1}', "{}"):
        with pytest.raises(ValidationError):
            StateChange.model_validate_json(text)
    for text in ('{"outcome":"expired"}', '{"words":"a\\u0000b"}'):
        with pytest.raises(ValidationError):
            EndTask.model_validate_json(text)


def test_a_heartbeat_lists_leases() -> None:
    """At most a thousand, each by its id."""
    held = lease(task()).id
    assert Heartbeat.model_validate_json(json.dumps({"leases": [held]})).leases == [held]
    for leases in ([held] * 1001, ["t" + held[1:]], [1]):
        with pytest.raises(ValidationError):
            Heartbeat.model_validate_json(json.dumps({"leases": leases}))


def test_a_task_as_told() -> None:
    """A client reads what a server wrote; instance and key are not told."""
    ended = task(state=TaskState.FAILED, ended_at=NOW, end_reason=EndReason.PROCESS_ENDED, key="thumb")
    told = TaskTold.of(ended)
    written = told.model_dump_json()
    assert TaskTold.model_validate_json(written) == told
    assert ended.instance is not None
    assert ended.instance not in written
    assert "thumb" not in written
    assert told.scope.to_scope() == ended.scope
    assert len(TaskTree.of([ended, ended]).tasks) == 2


def test_a_report_as_told() -> None:
    """The closing report survives its JSON form."""
    ended = task(state=TaskState.DONE, ended_at=NOW, end_reason=EndReason.SAID_SO, end_words="all done")
    told = ReportTold.of(Report.of(ended, [lease(ended)], NOW))
    assert ReportTold.model_validate_json(told.model_dump_json()) == told
    assert not told.final
