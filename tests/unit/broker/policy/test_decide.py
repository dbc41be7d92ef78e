"""Decisions one by one: who denies, under which name, in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.model.act import Act, Action
from broker.model.observed import Observation
from broker.model.scope import Scope, Sensitivity, patterns
from broker.model.task import Task, TaskState
from broker.policy import source
from broker.policy.decide import decide
from broker.policy.nearest import NONE
from ca.spiffe.id import SpiffeId
from fakes.nouns import BILLING, NOW, caller, facts, obtain, role, scope, task

EVERYBODY = '@id("all") @reason("everybody may") permit (principal, action, resource);'
STARTER = source.starter()
ALL = source.parse({"a": EVERYBODY})


def test_a_permit_names_its_policies_and_reasons() -> None:
    """Ids from `@id`, the sentence from `@reason`, the version of the set, no nearest change."""
    both = source.parse({"a": EVERYBODY, "b": '@id("also") permit (principal, action, resource);'})
    decision = decide(both, caller(), [task()], obtain(), facts(), NOW)
    assert decision.permits
    assert decision.policies == ("all", "also")
    assert decision.reason == "everybody may; permitted by the policy `also`"
    assert (decision.policy_version, decision.decided_at, decision.nearest) == (both.version, NOW, ())


def test_a_forbid_wins_and_says_why() -> None:
    """Whoever else permits."""
    policies = source.parse(
        {
            "a": EVERYBODY,
            "b": '@id("no") @reason("not today") forbid (principal, action, resource in Target::"orders-db");',
        }
    )
    decision = decide(policies, caller(), [task()], obtain(), facts(), NOW)
    assert (decision.permits, decision.policies, decision.reason) == (False, ("no",), "not today")
    maps = role("maps/reader")
    assert decide(policies, caller(), [task()], obtain("maps/reader"), facts(role=maps), NOW).permits


def test_without_a_permit_the_answer_is_deny() -> None:
    """Nothing decided; the sentence says what was asked."""
    policies = source.parse({"a": '@id("open") permit (principal, action == Action::"open", resource);'})
    decision = decide(policies, caller(), [task()], obtain(), facts(), NOW)
    assert (decision.permits, decision.policies) == (False, ())
    assert decision.reason == "no policy permits `obtain` of `orders-db/readonly`"
    assert decision.nearest == (NONE,)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"state": TaskState.DONE}, "the task has ended: it is `done`"),
        ({"state": TaskState.WAITING}, "the task is `waiting`, only an active task is given anything"),
        ({"state": TaskState.PROPOSED}, "the task is `proposed`, only an active task is given anything"),
        ({"deadline": NOW}, "the task is past its deadline"),
        ({"heartbeat": timedelta(seconds=1), "heard_at": NOW - timedelta(seconds=3)}, "the task has fallen silent"),
    ],
)
def test_a_task_that_does_not_live_is_given_nothing(changed: dict[str, Any], words: str) -> None:
    """Whatever the policies say; and no change of a fact would help."""
    decision = decide(ALL, caller(), [task(**changed)], obtain(), facts(), NOW)
    assert (decision.permits, decision.policies, decision.reason) == (False, ("task",), words)
    assert decision.nearest == ()


def test_a_task_lives_only_while_all_above_it_live() -> None:
    """The reason names the one that doesn't."""
    root = task(state=TaskState.CANCELLED)
    decision = decide(ALL, caller(), [root, task(root)], obtain(), facts(), NOW)
    assert decision.reason == f"the task `{root.id}` above it has ended: it is `cancelled`"
    waiting = task(state=TaskState.WAITING)
    assert decide(ALL, caller(), [waiting, task(waiting)], obtain(), facts(), NOW).permits


def test_a_waiting_task_keeps_what_it_has() -> None:
    """It may renew, not obtain."""
    waiting = [task(state=TaskState.WAITING)]
    assert decide(ALL, caller(), waiting, replace(obtain(), action=Action.RENEW), facts(), NOW).permits
    assert not decide(ALL, caller(), waiting, obtain(), facts(), NOW).permits


@pytest.mark.parametrize("observation", [one for one in Observation if one is not Observation.LIVE])
def test_a_process_nobody_sees_is_given_nothing(observation: Observation) -> None:
    """A bound task's process is seen to live, or the answer is no; unknown is no."""
    decision = decide(ALL, caller(), [task()], obtain(), facts(observation=observation), NOW)
    assert (decision.permits, decision.policies) == (False, ("observed",))
    assert decision.reason == f"the process is `{observation}`, expected one that is seen to live"


def test_a_task_without_an_instance_lives_by_its_deadline() -> None:
    """Where nobody observes, nothing is known to be dead."""
    unbound = [task(instance=None)]
    assert decide(ALL, caller(), unbound, obtain(), facts(observation=Observation.UNKNOWN), NOW).permits
    assert not decide(ALL, caller(), unbound, obtain(), facts(observation=Observation.ENDED), NOW).permits


@pytest.mark.parametrize(
    ("changed", "asked", "words"),
    [
        ({"roles": patterns(["maps/*"])}, {}, "the role `orders-db/readonly` is outside the task's scope"),
        ({}, {"tool": "sql"}, "the tool `sql` is outside the task's scope"),
        ({}, {"destination": "mail/out"}, "the destination `mail/out` is outside the task's scope"),
        (
            {"sensitivity": Sensitivity.PUBLIC},
            {},
            "`orders-db/readonly` is `internal`, outside the task's scope, which ends at `public`",
        ),
        (
            {"sensitivity": Sensitivity.INTERNAL},
            {"claimed_sensitivity": Sensitivity.CONFIDENTIAL},
            "`orders-db/readonly` is `confidential`, outside the task's scope, which ends at `internal`",
        ),
    ],
)
def test_the_scope_holds_whatever_the_policies_say(changed: dict[str, Any], asked: dict[str, Any], words: str) -> None:
    """Role, tool, destination and ceiling, the higher of what is known and claimed."""
    one = [task(scope=scope("*", **changed) if "roles" not in changed else Scope(**changed))]
    decision = decide(ALL, caller(), one, obtain(**asked), facts(), NOW)
    assert (decision.permits, decision.policies, decision.reason) == (False, ("scope",), words)


def test_the_scope_is_that_of_the_whole_chain() -> None:
    """A child keeps its wide scope; narrowing the root reaches it all the same."""
    root = task(scope=scope("maps/*"))
    decision = decide(ALL, caller(), [root, task(root, scope=scope("*"))], obtain(), facts(), NOW)
    assert decision.policies == ("scope",)


def test_a_higher_claim_must_be_permitted_as_well() -> None:
    """A policy that permits only what is `confidential` can't be reached by claiming it."""
    text = '@id("odd") permit (principal, action, resource) when { context.broker.sensitivity == 2 };'
    policies = source.parse({"a": text})
    asked = obtain(claimed_sensitivity=Sensitivity.CONFIDENTIAL)
    assert not decide(policies, caller(), [task()], asked, facts(), NOW).permits
    known = facts(role=role(sensitivity=Sensitivity.CONFIDENTIAL))
    assert decide(policies, caller(), [task()], obtain(), known, NOW).permits


def test_an_error_denies_even_where_cedar_would_allow() -> None:
    """Cedar passes over a forbid that fails; here it names the policy and denies."""
    text = (
        '@id("sum") forbid (principal, action, resource) when { context.claimed.confidence + 9223372036854775807 > 0 };'
    )
    policies = source.parse({"a": EVERYBODY, "b": text})
    assert decide(policies, caller(), [task()], obtain(confidence=0), facts(), NOW).policies == ("sum",)
    failed = decide(policies, caller(), [task()], obtain(confidence=1), facts(), NOW)
    assert (failed.permits, failed.policies) == (False, ("evaluation",))
    assert failed.reason == "a policy could not be evaluated, so nothing is permitted: `sum`"


@pytest.mark.parametrize(
    "known",
    [
        facts(role=None),
        facts(role=role("orders-db/other")),
        facts(),
    ],
)
def test_facts_that_do_not_belong_together_deny(known: Any) -> None:
    """No role, another role, or a number Cedar can't hold."""
    act = obtain(confidence=1 << 70) if known == facts() else obtain()
    decision = decide(ALL, caller(), [task()], act, known, NOW)
    assert (decision.permits, decision.policies) == (False, ("facts",))
    assert decision.reason.startswith("incomplete facts: ")
    assert decision.nearest == ()


def test_a_request_is_checked_against_the_schema_even_where_no_policy_reads_it() -> None:
    """A text where a number belongs is not passed over because nobody looked."""
    odd = obtain(confidence="90")  # what only a mistake of ours would send
    assert decide(ALL, caller(), [task()], odd, facts(), NOW).policies == ("facts",)


def test_a_tool_outside_the_scope_is_not_used() -> None:
    """For `use` the resource is the tool, and the scope's tools bound it."""
    use = Act(action=Action.USE, resource="sql", sensitivity=Sensitivity.INTERNAL)
    inside = [task(scope=scope(tools=patterns(["sql"])))]
    assert decide(ALL, caller(), inside, use, facts(role=None), NOW).permits
    outside = decide(ALL, caller(), [task(scope=scope("*"))], use, facts(role=None), NOW)
    assert (outside.policies, outside.reason) == (("scope",), "the tool `sql` is outside the task's scope")


def test_texts_no_policy_language_can_hold_deny() -> None:
    """Half a surrogate in what an agent says is no way around a forbid."""
    decision = decide(ALL, caller(), [task(purpose="\ud800")], obtain(), facts(), NOW)
    assert (decision.permits, decision.policies) == (False, ("facts",))


class TestOpening:
    """Opening a task, by the starter policies."""

    ACT = Act(action=Action.OPEN, resource=str(BILLING))

    def _decide(self, *chain: Task, identity: SpiffeId = BILLING, **known: Any) -> tuple[bool, tuple[str, ...]]:
        said = facts(role=None, **{"requested": scope("orders-db/*", sensitivity=Sensitivity.INTERNAL), **known})
        decision = decide(STARTER, caller(identity), chain, self.ACT, said, NOW)
        return decision.permits, decision.policies

    def test_one_of_ours_may_open(self) -> None:
        """Even where nothing observes."""
        assert self._decide() == (True, ("starter.open",))
        assert self._decide(observation=Observation.UNKNOWN) == (True, ("starter.open",))

    def test_a_stranger_may_not(self) -> None:
        """An agent of a federated trust domain is known, and not ours."""
        assert self._decide(identity=SpiffeId.parse("spiffe://example.com/agents/billing")) == (False, ())

    def test_an_endless_task_asks_for_little(self) -> None:
        """More than `internal` needs a deadline."""
        wide = scope("*", sensitivity=Sensitivity.CONFIDENTIAL)
        assert self._decide(requested=wide) == (False, ("starter.endless",))
        assert self._decide(requested=wide, lasts=timedelta(hours=1)) == (True, ("starter.open",))

    def test_what_is_asked_for_must_be_known(self) -> None:
        """Without a scope there is nothing to judge."""
        assert self._decide(requested=None) == (False, ("facts",))

    def test_a_child_asks_for_no_more_than_its_parent_has(self) -> None:
        """And the parent must live."""
        parent = task(scope=scope("orders-db/*"))
        assert self._decide(parent) == (True, ("starter.open",))
        assert self._decide(task(scope=scope("maps/*"))) == (False, ("scope",))
        assert self._decide(task(state=TaskState.WAITING)) == (False, ("task",))


@pytest.mark.parametrize(
    ("sensitivity", "strength", "confidence", "expected"),
    [
        (Sensitivity.PUBLIC, "none", 0, ("starter.credential",)),
        (Sensitivity.INTERNAL, "weak-peer", 0, ("starter.credential",)),
        (Sensitivity.CONFIDENTIAL, "own-uid", 0, ("starter.confidential",)),
        (Sensitivity.CONFIDENTIAL, "shared-uid", 0, ()),
        (Sensitivity.CONFIDENTIAL, "weak-peer", 0, ("starter.weak-peer",)),
        (Sensitivity.CONFIDENTIAL, "something new", 0, ("starter.weak-peer",)),
        (Sensitivity.RESTRICTED, "tpm", 100, ()),
        (Sensitivity.RESTRICTED, "tpm", 49, ("starter.doubtful",)),
    ],
)
def test_what_the_starter_gives(
    sensitivity: Sensitivity, strength: str, confidence: int, expected: tuple[str, ...]
) -> None:
    """Up to `internal` for all of ours, `confidential` for what holds, `restricted` for nobody."""
    known = facts(strength=strength, role=role(sensitivity=sensitivity))
    decision = decide(STARTER, caller(), [task()], obtain(confidence=confidence), known, NOW)
    assert decision.policies == expected
    assert decision.permits is (expected in {("starter.credential",), ("starter.confidential",)})
