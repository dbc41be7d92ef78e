"""What an operator says about a namespace of a Kubernetes cluster, and whose tokens it gives."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from broker.model.role import Role
from ca.errors import Malformed
from ca.runtime.kubernetes import KubernetesSettings
from ca.runtime.settings import Duration
from ca.runtime.settings import Settings as Base

SHORTEST = timedelta(seconds=600)
"""What the API gives at least."""
LONGEST = timedelta(hours=24)

Label = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Name = Annotated[str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Audience = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


class Settings(Base):
    """One namespace of one cluster; `api` left out is the cluster whose pod the broker is.

    `remembered` is for how long its API servers, and whoever asks them, may go on taking a token they saw before.
    """

    kind: Literal["kubernetes"]
    namespace: Label
    api: KubernetesSettings = KubernetesSettings()
    remembered: Duration = timedelta(seconds=10)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not timedelta(0) <= self.remembered <= timedelta(minutes=2):
            raise ValueError("`remembered` is 2m at most")
        return self


class RoleSettings(Base):
    """What a role of such a target says: whose tokens, and for whom.

    Without `audiences` they are for the API server itself, which looks whether what a token is bound to is still there.
    `reviewed` is the operator's word that whoever takes those of other audiences asks it too (TokenReview).
    """

    service_account: Name
    audiences: Annotated[tuple[Audience, ...], Field(max_length=10)] = ()
    reviewed: bool = False

    @model_validator(mode="after")
    def _revocable(self) -> Self:
        if bool(self.audiences) != self.reviewed:
            raise ValueError("`audiences` go with `reviewed: true`: whoever judges by the signature takes ended tokens")
        return self


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    if not timedelta(0) < role.ttl <= LONGEST:
        raise Malformed(f"the role `{role.full_name}` needs a `ttl` of 24h at most")
    try:
        return RoleSettings.model_validate_json(json.dumps(dict(role.settings)))
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` needs `service_account`, and may have `audiences` with `reviewed: true`,"
            " when those who take its tokens ask TokenReview about each"
        ) from error
