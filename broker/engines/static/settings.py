"""What an operator says about a target of kind `static`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from broker.model.role import Role
from broker.model.value import check_value_name
from ca.errors import Malformed
from ca.runtime.settings import Settings as Base
from ca.runtime.settings import parsed_by

_FIELD = re.compile(r"[a-z][a-z0-9_]{0,40}")


def _check_field(name: str) -> str:
    if not _FIELD.fullmatch(name):
        raise Malformed(f"`{name[:60]}` can't name a field: expected lower-case letters, digits and `_`")
    return name


ValueName = Annotated[str, parsed_by(check_value_name)]
FieldName = Annotated[str, parsed_by(_check_field)]
Fact = Annotated[str, Field(max_length=500)] | int


class Settings(Base):
    """One target of kind `static`: a shelf of values, nothing is connected."""

    kind: Literal["static"]


class CheckOut(Base):
    """An account somebody else made, lent to one lease at a time: at which other target, and what it is called."""

    target: ValueName
    account: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


class RoleSettings(Base):
    """What a role of such a target says.

    Either `value`, the name it was put under (left out: the role's own name), handed over as `handed_as`; or
    `check_out`. `fields` are plain facts handed over beside it, as they are written here.
    """

    value: ValueName | None = None
    handed_as: FieldName = "value"
    check_out: CheckOut | None = None
    fields: Mapping[FieldName, Fact] = Field(default_factory=dict, max_length=20)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.check_out is not None and (self.value is not None or self.handed_as != "value"):
            raise ValueError("expected either `value` or `check_out`: an account that is lent has no value of its own")
        taken = {"username", "password"} if self.check_out is not None else {self.handed_as, "version"}
        if both := sorted(taken & self.fields.keys()):
            raise ValueError(f"`fields` can't hold `{both[0]}`, which is handed over anyway")
        return self


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    value: dict[str, Any] = dict(role.settings)
    try:
        return RoleSettings.model_validate(value)
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` may have `value` and `handed_as`, or `check_out`, and `fields`"
        ) from error
