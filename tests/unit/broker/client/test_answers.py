"""Problems over the wire and back."""

from __future__ import annotations

import json

import pytest

from broker.client.answers import Failed, problem_of, read
from broker.errors import Fenced, Refused, TargetDown
from broker.wire.credentials import CredentialTold
from ca.errors import Conflict, Denied, Exhausted, Malformed, Problem, Unavailable
from ca.runtime.problem import Invalid, document, status_of


@pytest.mark.parametrize(
    "problem",
    [
        Refused("no", decision="d1", policies="a, b"),
        Fenced("the task ended"),
        TargetDown("nobody is there"),
        Denied("no"),
        Exhausted("too many", limit=3),
    ],
)
def test_a_problem_comes_back_as_it_was(problem: Problem) -> None:
    """Class, code, sentence and facts."""
    content = json.dumps(document(problem, "r1")).encode()
    found = problem_of(status_of(problem), content)
    assert type(found) is type(problem)
    assert str(found) == str(problem)
    assert found.details == {**problem.details, "request_id": "r1"}


def test_where_a_body_was_wrong_is_told() -> None:
    """The sentence names the keys; the code of a class unknown here is kept."""
    problem = Invalid("the body is not of its form", {"scope.roles": "a list"})
    found = problem_of(400, json.dumps(document(problem, "r1")).encode())
    assert isinstance(found, Malformed)
    assert str(found) == "the body is not of its form (`scope.roles`: a list)"
    assert found.details["code"] == "invalid"


@pytest.mark.parametrize(
    ("status", "kind"), [(503, Unavailable), (409, Conflict), (418, Failed), (500, Failed), (502, Failed)]
)
def test_an_answer_that_is_no_document_goes_by_its_status(status: int, kind: type[Problem]) -> None:
    """Something between us and the broker may answer in its own way."""
    found = problem_of(status, b"<html>")
    assert type(found) is kind
    assert str(status) in str(found)


def test_an_answer_of_another_form_is_not_repeated() -> None:
    """It may hold a secret."""
    with pytest.raises(Malformed) as caught:
        read(b'{"secret": {"password": "tulip"}}', CredentialTold)
    assert "tulip" not in str(caught.value)
    assert caught.value.__cause__ is None
