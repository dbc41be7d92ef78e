"""Bodies made here from what somebody typed: what they refuse is told in their own words."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ca.errors import Malformed

M = TypeVar("M", bound=BaseModel)


def asking(model: type[M], **values: Any) -> M:
    """A body of `values`, those that are None left out. Raises Malformed: names each that is not of its form."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        found = [f"`{'.'.join(map(str, fault['loc']))}`: {_words(fault['msg'])}" for fault in faults]
        raise Malformed("; ".join(found)) from None


def _words(message: str) -> str:
    text = message.replace("Input should be", "expected")
    return text[:1].lower() + text[1:]
