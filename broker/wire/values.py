"""Bodies of /v1/values: what operators put where it rests sealed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from broker.wire.body import Asked, Moment, Told, fault
from ca.runtime.secret import Secret

LONGEST = 32 * 1024
"""Characters of a value: what a key file or a small certificate chain needs."""


def _given(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value or len(value) > LONGEST:
        raise fault(f"expected a text of 1 to {LONGEST} characters")
    if "\x00" in value:
        raise fault("expected a text without zero bytes")
    return Secret(value)


Given = Annotated[
    Secret,
    PlainValidator(_given),
    PlainSerializer(lambda secret: secret.reveal(), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "password", "minLength": 1, "maxLength": LONGEST}),
]
"""A secret on its way in."""


class PutValue(Asked):
    """The value, as text."""

    value: Given = Field(repr=False)


class VersionTold(Told):
    """One version, without the value; `key` names the sealing key it rests under, None when it was destroyed."""

    version: int
    made_at: Moment
    destroyed_at: Moment | None = None
    key: str | None = None


class ValuePut(Told):
    """The number the value was put under."""

    version: int


class VersionsTold(Told):
    """Every version of a value, the newest first; the newest that was not destroyed is handed over."""

    value: str
    versions: list[VersionTold]
