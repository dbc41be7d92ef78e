"""What an operator may say: strict YAML into a frozen model; every fault with its line, its key and what was expected.

    class ServerSettings(Settings):
        trust_domain: Annotated[TrustDomain, parsed_by(TrustDomain.parse)]
        leaf_lifetime: Duration = timedelta(hours=1)
        seal: SecretReference | None = None

    settings = load(Path("/etc/sojourn/attestor-server.yaml"), ServerSettings)

An unknown key is refused and the nearest known one named. Nothing is guessed: `"5"` is no number, `1` is no boolean, a
length of time has its unit. A secret stands in a file of its own or in the environment (`file:/run/secrets/pg`,
`env:PGPASSWORD`), never in the settings; whoever writes one there is told so without hearing it again.
"""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ca.errors import Malformed
from ca.runtime.document import BadSettings, Document, Place, Step, looks_secret, read, read_file, shortened
from ca.runtime.secret import Reference

__all__ = ["BadSettings", "Duration", "SecretReference", "Settings", "load", "loads", "parsed_by", "read_tree"]

T = TypeVar("T")

_OURS = "sojourn"
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,8})s)?(?:(\d{1,9})ms)?")
_TIMEDELTA = re.compile(r"datetime\.timedelta\(([^)]*)\)")
_SAYINGS = {
    "missing": "is required",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected a text; a number is quoted",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "set_type": "expected a list",
    "frozen_set_type": "expected a list",
}


class Settings(BaseModel):
    """What every settings model is: frozen, strict, closed."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    @classmethod
    def model_for(cls, tree: Any) -> type[Self]:  # noqa: ARG003 - what others look at
        """Which model a file holds, told by its plain tree: another one where the kind stands in the file."""
        return cls


M = TypeVar("M", bound=BaseModel)


def load(path: Path, model: type[M]) -> M:
    """Read the file at `path`. Raises BadSettings with every fault."""
    return _validate(read_file(path), model)


def loads(text: str, source: str, model: type[M]) -> M:
    """Read `text`; errors call it `source`. Raises BadSettings with every fault."""
    return _validate(read(text, source), model)


def read_tree(text: str, source: str) -> Any:
    """The plain tree of `text`, for those who check it themselves. Raises BadSettings."""
    return read(text, source).value


def parsed_by(parse: Callable[[str], T]) -> PlainValidator:
    """Make a field of what `parse` makes of a text; its `Malformed` becomes the fault of that line."""

    def validate(value: Any) -> Any:
        if not isinstance(value, (str, int, float, list, dict, type(None))):
            return value  # made in code, not read
        if not isinstance(value, str):
            raise PydanticCustomError(_OURS, "expected a text")
        try:
            return parse(value)
        except Malformed as error:
            raise PydanticCustomError(_OURS, "{text}", {"text": str(error)}) from None

    return PlainValidator(validate)


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if found is None:
        raise PydanticCustomError(_OURS, "expected a length of time with its unit, as in `90s`, `1h30m` or `500ms`")
    amounts = zip(found.groups(), _UNITS.values(), strict=True)
    return timedelta(seconds=sum(int(amount) * unit for amount, unit in amounts if amount))


def _reference(value: Any) -> Any:
    if isinstance(value, Reference):
        return value
    try:
        return Reference.parse(value if isinstance(value, str) else "")
    except Malformed as error:
        raise PydanticCustomError(_OURS, "{text}", {"text": str(error)}) from None


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A length of time: `90s`, `10m`, `1h30m`, `2d`, `500ms`; never a bare number."""

SecretReference = Annotated[Reference, PlainValidator(_reference)]
"""Where a secret rests: `file:/path` or `env:NAME`."""


def _validate(document: Document, model: type[M]) -> M:
    value = {} if document.value is None else document.value
    try:
        model = model.model_for(value) if issubclass(model, Settings) else model
        # JSON, because in strict mode it may still say a path, an enumeration or a tuple in the only way it can
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        faults = [_fault(document, model, details) for details in error.errors(include_url=False, include_input=False)]
    except Malformed as error:
        faults = [(1, f"{document.source}: {error}")]
    raise BadSettings(text for _, text in sorted(dict.fromkeys(faults)))


def _fault(document: Document, model: type[BaseModel], details: ErrorDetails) -> tuple[int, str]:
    place = _place(document.value, details["loc"])
    missing = details["type"] == "missing"
    shown = (*place, str(details["loc"][-1])) if missing else place
    if details["type"] == "extra_forbidden":
        words = _unknown(str(place[-1]), model, details["loc"])
    elif looks_secret(shown) and details["type"] == "value_error":
        words = "is not what was expected here"
    else:
        words = _words(details)
    return document.line(place), f"{document.at(shown)}: {words}"


def _place(tree: Any, loc: Sequence[Step]) -> Place:
    """Those steps of `loc` that are in the file; pydantic also names the branch of a union it tried."""
    value: Any = tree
    place: list[Step] = []
    for step in loc:
        node: Mapping[Step, Any] = (
            value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        )
        if step in node:
            value = node[step]
            place.append(step)
    return tuple(place)


def _words(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _SAYINGS:
        return _SAYINGS[kind]
    if kind == "union_tag_invalid":
        return f"expected {context['discriminator']} to be one of {context['expected_tags']}".replace("'", "`")
    if kind == "union_tag_not_found":
        return f"{context['discriminator']} is required".replace("'", "`")
    if kind == "value_error":
        return str(context.get("error", "is not what was expected here"))
    text = details["msg"]
    if kind == _OURS:
        return text
    text = _TIMEDELTA.sub(_seconds, text)
    text = text.replace("Input should be", "expected").replace("'", "`")
    return text[:1].lower() + text[1:]


def _seconds(written: re.Match[str]) -> str:
    """A bound as an operator would write it; pydantic spells it as Python does."""
    parts = {name: int(amount) for name, amount in re.findall(r"(\w+)=(\d+)", written[1])}
    return f"`{timedelta(**parts).total_seconds():g}s`"


def _unknown(key: str, model: type[BaseModel], loc: Sequence[Step]) -> str:
    known = sorted(_known_keys(model, loc[:-1]))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"unknown key, did you mean `{near[0]}`?"
    listed = "`, `".join(known)
    return f"unknown key, expected one of `{listed}`" if known else f"unknown key `{shortened(key)}`"


def _known_keys(model: type[BaseModel], loc: Sequence[Step]) -> set[str]:
    """The keys that may stand at `loc`, found by walking the annotations."""
    types: set[Any] = {model}
    for step in loc:
        inner = {deeper for kind in types for deeper in _inside(kind, step)}
        types = inner or {kind for kind in types if not _is_model(kind)} or types  # a union's branch is no step
    return {field.alias or name for kind in types if _is_model(kind) for name, field in kind.model_fields.items()}


def _inside(kind: Any, step: Step) -> Iterator[Any]:
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            if step in {name, field.alias}:
                yield from _flat(field.annotation)
        return
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if isinstance(origin, type) and arguments:
        yield from _flat(arguments[-1] if issubclass(origin, Mapping) else arguments[0])


def _flat(kind: Any) -> Iterator[Any]:
    origin = typing.get_origin(kind)
    if origin is Annotated:
        yield from _flat(typing.get_args(kind)[0])
    elif origin is typing.Union or origin is UnionType:
        for part in typing.get_args(kind):
            yield from _flat(part)
    else:
        yield kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
