"""What every body of the REST surface is made of: strict, bounded, and in one spelling.

What is *asked* is closed: an unknown key is refused. What is *told* is open: a client of one version reads the answers
of the next. Moments are RFC 3339 with their offset, lengths of time `90s`, `10m`, `1h30m`; no text is unbounded, and
none that a human may be shown holds a control or direction character.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from broker.model.ids import LeaseId, TaskId, parse_lease, parse_task
from broker.model.scope import Pattern, Sensitivity
from ca.errors import Malformed
from ca.runtime.secret import Secret
from ca.spiffe.id import SpiffeId, TrustDomain

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_LENGTH = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,8})s)?(?:(\d{1,9})ms)?", re.ASCII)
_LENGTH_PATTERN = r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class Asked(BaseModel):
    """A body somebody sends us."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Told(BaseModel):
    """A body we answer with."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


T = TypeVar("T", bound=BaseModel)


class Page(Told, Generic[T]):
    """A part of a list; `next` is the cursor of the following part, absent on the last."""

    items: Annotated[list[T], Field(max_length=1000)]
    next: Annotated[str, StringConstraints(max_length=200)] | None = None


def parse_length(text: str) -> timedelta:
    """Read `90s`, `10m`, `1h30m`, `2d` or `500ms`. Raises Malformed."""
    found = _LENGTH.fullmatch(text) if text else None
    if found is None:
        raise Malformed("expected a length of time with its unit, as in `90s`, `1h30m` or `500ms`")
    amounts = zip(found.groups(), _UNITS.values(), strict=True)
    return timedelta(milliseconds=sum(int(amount) * unit for amount, unit in amounts if amount))


def write_length(length: timedelta) -> str:
    """The inverse of `parse_length`; what is finer than a millisecond is cut off."""
    rest = max(0, length // timedelta(milliseconds=1))
    written = ""
    for unit, size in _UNITS.items():
        amount, rest = divmod(rest, size)
        written += f"{amount}{unit}" if amount else ""
    return written or "0s"


def parse_moment(text: str) -> datetime:
    """Read an RFC 3339 moment. Raises Malformed: not one, or without an offset."""
    try:
        return datetime.fromisoformat(text if _MOMENT.fullmatch(text) else "").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed("expected a moment with its offset, as in `2026-01-31T12:00:00Z`") from error


def write_moment(moment: datetime) -> str:
    """RFC 3339 in UTC, with a fraction only where there is one."""
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def fault(text: str) -> PydanticCustomError:
    """What a validator raises: our own sentence, without pydantic's words around it."""
    return PydanticCustomError("sojourn", "{text}", {"text": text})


def _read_by(parse: Callable[[str], object], kind: type) -> Callable[[Any], Any]:
    """A validator that lets a ready value pass and reads a text; our sentence becomes pydantic's."""

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str):
            raise fault("expected a text")
        try:
            return parse(value)
        except Malformed as error:
            raise fault(str(error)) from None

    return read


def _checked_by(parse: Callable[[str], object]) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            parse(value)
        except Malformed as error:
            raise fault(str(error)) from None
        return value

    return check


def _exact(text: str) -> str:
    if Pattern(text).is_prefix:
        raise fault("expected one name, not a prefix")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise fault("expected one line without control or direction characters")
    return text


def _reveal(secret: Secret) -> str:
    return secret.reveal()


Length = Annotated[
    timedelta,
    PlainValidator(_read_by(parse_length, timedelta)),
    PlainSerializer(write_length, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _LENGTH_PATTERN, "examples": ["10m"]}),
]
"""A length of time."""

Moment = Annotated[
    datetime,
    PlainValidator(_read_by(parse_moment, datetime)),
    PlainSerializer(write_moment, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A point in time."""

Level = Annotated[
    Sensitivity,
    PlainValidator(_read_by(Sensitivity.parse, Sensitivity)),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "enum": [str(level) for level in Sensitivity]}),
]
"""A sensitivity by its word."""

Identity = Annotated[
    SpiffeId,
    PlainValidator(_read_by(SpiffeId.parse, SpiffeId)),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "uri", "maxLength": 2048}),
]
"""A SPIFFE ID."""

Domain = Annotated[
    TrustDomain,
    PlainValidator(_read_by(TrustDomain.parse, TrustDomain)),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "maxLength": 255}),
]
"""A trust domain by its name."""

Shown = Annotated[
    Secret,
    PlainValidator(_read_by(Secret, Secret)),
    PlainSerializer(_reveal, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "password"}),
]
"""A secret on its one way out: only as JSON is it its own text, everywhere else it hides."""

Prefix = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_checked_by(Pattern.parse))]
"""A name of a role, tool or destination, or a prefix of them: `a/b`, `a/*` or `*`."""

Name = Annotated[Prefix, AfterValidator(_exact)]
"""A name of one role, tool or destination."""

TaskName = Annotated[TaskId, StringConstraints(max_length=40), AfterValidator(_checked_by(parse_task))]
LeaseName = Annotated[LeaseId, StringConstraints(max_length=40), AfterValidator(_checked_by(parse_lease))]

Line = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
"""One line a human may read."""

Stamp = Annotated[str, StringConstraints(max_length=200)]
"""A short text we wrote: an id, a digest, a name."""
