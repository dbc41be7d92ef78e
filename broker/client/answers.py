"""What a broker answered when it refused: problem+json back into the Problem it was.

The nearest class is found by `code`; one this version doesn't know falls back to what its status says. Every fact that
stood beside the sentence stays in `details`, and so does a code that has no class here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from attestor.client.errors import Unreachable
from broker import errors
from ca.errors import Conflict, Denied, Exhausted, Malformed, NotFound, Problem, Stale, Unauthenticated, Unavailable

M = TypeVar("M", bound=BaseModel)

_BY_STATUS: Mapping[int, type[Problem]] = {
    400: Malformed,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    405: Malformed,
    408: Malformed,
    409: Conflict,
    413: Exhausted,
    415: Malformed,
    429: Exhausted,
    503: Unavailable,
}
_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "retryable", "errors"})
_MOST_SHOWN = 5


class Failed(Problem):
    """The broker failed in a way it did not foresee; its log knows more under `request_id`."""

    code = "failed"


_PLAIN = (Malformed, Unauthenticated, Denied, NotFound, Conflict, Stale, Exhausted, Unavailable, Unreachable)
_OURS = (
    errors.UnknownRole,
    errors.Refused,
    errors.NotPossible,
    errors.AlreadyAcknowledged,
    errors.KeyReused,
    errors.QuotaReached,
    errors.Fenced,
    errors.TargetDown,
    errors.OutcomeUnknown,
    errors.NotYet,
    errors.UnderWay,
    errors.ClockUntrusted,
)
_BY_CODE: Mapping[str, type[Problem]] = {kind.code: kind for kind in (*_PLAIN, *_OURS)}


class Answer(bytes):
    """What a broker answered, which may hold a secret: a traceback that shows its frames' locals does not show this."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Answer({len(self)} bytes)"

    __str__ = __repr__


def problem_of(status: int, content: bytes) -> Problem:
    """The Problem an answer with `status` of 400 or more stands for."""
    found = _document(content)
    code = found.get("code")
    known = _BY_CODE.get(code) if isinstance(code, str) else None
    kind = known or _BY_STATUS.get(status, Failed)
    words = found.get("detail") or found.get("title") or f"the broker answered with status {status}"
    details = {name: value for name, value in found.items() if name not in _MEMBERS and _is_fact(value)}
    if known is None and isinstance(code, str):
        details["code"] = code
    return kind(f"{words}{_where(found.get('errors'))}", **details)


def read(content: bytes, model: type[M]) -> M:
    """The answer as a `model`. Raises Malformed; it holds nothing of what was answered, which may be a secret."""
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise Malformed("the broker's answer is not understood: is it of another version?") from None


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_fact(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def _where(errors: object) -> str:
    """What was expected where, for a body that was not of its form."""
    if not isinstance(errors, list):
        return ""
    shown = [f"`{one.get('path')}`: {one.get('expected')}" for one in errors[:_MOST_SHOWN] if isinstance(one, dict)]
    return f" ({'; '.join(shown)})" if shown else ""
