"""A failure as a client reads it: problem+json by RFC 9457, the status by one table.

The sentence of a `Problem` is shown; of any other exception nothing but the id of the request, by which an operator
finds it in the log. A class not named here has the status of the nearest class it grows from.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from ca.errors import (
    Conflict,
    Denied,
    Exhausted,
    Malformed,
    NotFound,
    Problem,
    Stale,
    Unauthenticated,
    Unavailable,
)

CONTENT_TYPE = "application/problem+json"
TYPE = "urn:sojourn:problem:"
RETRY_AFTER = "1"
"""Seconds a client should wait before it repeats what may succeed later."""

MOST_ERRORS = 50


class Invalid(Malformed):
    """A body or query that is not of its form; `errors` says where and what was expected, never what stood there."""

    code = "invalid"

    def __init__(self, message: str, errors: Mapping[str, str]) -> None:
        super().__init__(message)
        self.errors = errors


class NoSuchMethod(Malformed):
    """The address is known, and not for this method."""

    code = "method-not-allowed"


class WrongType(Malformed):
    """A body that is not JSON."""

    code = "unsupported-media-type"


class TooSlow(Malformed):
    """The body did not arrive in time."""

    code = "too-slow"


class TooLarge(Exhausted):
    """A body over its limit."""

    code = "too-large"


STATUS: Mapping[type[Problem], HTTPStatus] = {
    Malformed: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Denied: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    NoSuchMethod: HTTPStatus.METHOD_NOT_ALLOWED,
    TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    Conflict: HTTPStatus.CONFLICT,
    Stale: HTTPStatus.CONFLICT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    WrongType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Exhausted: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Problem: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def status_of(problem: Problem) -> HTTPStatus:
    """The status of `problem`, by the nearest class in the table."""
    return next(STATUS[kind] for kind in type(problem).__mro__ if kind in STATUS)


def document(problem: Problem | None, request_id: str) -> dict[str, Any]:
    """What is sent; None stands for an exception nobody foresaw.

    The facts in `details` stand beside the sentence and never replace it.
    """
    if problem is None:
        unforeseen = f"something failed that should not have: the log knows more under the request `{request_id}`"
        return _members(HTTPStatus.INTERNAL_SERVER_ERROR, unforeseen, Problem.code, Problem.retryable, request_id)
    found = _members(status_of(problem), str(problem), problem.code, problem.retryable, request_id)
    if isinstance(problem, Invalid):
        shown = list(problem.errors.items())[:MOST_ERRORS]
        found["errors"] = [{"path": path, "expected": expected} for path, expected in shown]
    return {**problem.details, **found}


def headers_of(status: HTTPStatus, problem: Problem | None = None) -> dict[str, str]:
    """What a client is told beside the document; a problem that knows it says after how many seconds to come back."""
    if status not in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        return {}
    known = None if problem is None else problem.details.get("retry_after")
    return {"Retry-After": RETRY_AFTER if known is None else str(known)}


def _members(status: HTTPStatus, detail: str, code: str, retryable: bool, request_id: str) -> dict[str, Any]:  # noqa: FBT001
    return {
        "type": TYPE + code,
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "retryable": retryable,
        "request_id": request_id,
    }
