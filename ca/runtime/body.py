"""A request's body and query, read under a limit and checked against a model.

Refused: more than the limit, by its declared length or while it comes in; what is not JSON in UTF-8; a key given twice,
which two readers could understand in two ways; nesting without end; whatever the model doesn't know. The answer lists
every error by its path and never repeats a value: it may have been a secret in the wrong place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Never, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from ca.errors import Malformed
from ca.runtime.problem import Invalid, TooLarge, TooSlow, WrongType

PATIENCE = 30.0
"""Seconds a body may take to arrive."""

M = TypeVar("M", bound=BaseModel)
_LONGEST_PATH = 200
_EMPTY = (b"", b"{}")


async def read(request: web.Request, limit: int) -> bytes:
    """The body as it came, not longer than `limit`.

    Raises:
        TooLarge: it is longer.
        WrongType: it is there and not `application/json`, or compressed.
        TooSlow: it did not arrive in time.
    """
    if (request.content_length or 0) > limit:
        raise TooLarge(f"the body is too large: expected no more than {limit} bytes", limit=limit)
    if not request.can_read_body:
        return b""
    if request.content_type != "application/json" or request.headers.get("Content-Encoding", "identity") != "identity":
        raise WrongType("the body must be plain `application/json`")
    content = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.content.iter_any():
                content += chunk
                if len(content) > limit:
                    raise TooLarge(f"the body is too large: expected no more than {limit} bytes", limit=limit)
    except TimeoutError as error:
        raise TooSlow(f"the body did not arrive within {PATIENCE:.0f} s") from error
    return bytes(content)


def parse(content: bytes, model: type[M] | None) -> M | None:
    """The body as a `model`; without one only an empty body or an empty object will do. Raises Malformed."""
    if model is None:
        if content.strip() not in _EMPTY:
            raise Malformed("this call takes no body")
        return None
    if not content:
        raise Malformed("a body of `application/json` was expected")
    _check_json(content)
    return _checked(lambda: model.model_validate_json(content), "body")


def parse_query(query: Mapping[str, str], model: type[M]) -> M:
    """The query as a `model`. Raises Invalid."""
    return _checked(lambda: model.model_validate(query), "query")


def single_values(request: web.Request) -> dict[str, str]:
    """The query's parameters. Raises Malformed when one stands there twice."""
    found = dict(request.query)
    if len(found) != len(request.query):
        raise Malformed("a parameter of the query is given twice")
    return found


def _check_json(content: bytes) -> None:
    try:
        json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise Malformed("the body is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise Malformed("the body is not UTF-8") from error
    except ValueError as error:
        raise Malformed("the body is not JSON") from error


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Malformed("an object in the body has a key twice")


def _no_constant(_: str) -> Never:
    raise ValueError("NaN and Infinity are no JSON")


def _checked(validate: Callable[[], M], what: str) -> M:
    try:
        return validate()
    except ValidationError as error:
        found: dict[str, str] = {}
        for fault in error.errors(include_url=False):
            found.setdefault(_path(fault["loc"]), _expectation(fault))
        count = "one error" if len(found) == 1 else f"{len(found)} errors"
        raise Invalid(f"the {what} is not of the form that was expected: {count}", found) from None


def _path(steps: tuple[int | str, ...]) -> str:
    path = ".".join(str(step) for step in steps)
    return path[:_LONGEST_PATH].encode("unicode_escape").decode("ascii") or "."


def _expectation(fault: Mapping[str, Any]) -> str:
    """Pydantic's words, unless the value stands in them."""
    if fault["type"] == "extra_forbidden":
        return "nothing: there is no such key"
    if fault["type"] == "missing":
        return "a value"
    words, value = str(fault["msg"]), fault["input"]
    own = fault["type"] in {"value_error", "assertion_error", "union_tag_invalid"}
    if own and (not isinstance(value, str) or value in words):
        return "another value"
    return words.removeprefix("Value error, ").removeprefix("Input ")
