"""What an operator says about AWS: an account's region, how we prove ourselves, and roles to be assumed."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from broker.model.role import Role
from ca.errors import Malformed
from ca.runtime.fetch import parse_url
from ca.runtime.settings import SecretReference, parsed_by
from ca.runtime.settings import Settings as Base

SHORTEST = timedelta(seconds=900)
"""What AWS gives at least."""
ON_THE_WAY = timedelta(seconds=60)
"""A minute for the call and for clocks that differ: a session must not outlive what was said of it."""
LONGEST = timedelta(seconds=3600)
"""What AWS gives for every role; nothing takes a session back, so no more is asked for."""

_POLICY_LENGTH = 2048
_POLICY = re.compile(r"[\t\n\r\x20-\xff]+")


def check_endpoint(text: str) -> str:
    """An `https` address without path and query. Raises Malformed."""
    url = parse_url(text)
    if url.raw_path_qs != "/":
        raise Malformed("an endpoint is `https://host` or `https://host:port`, without a path")
    return str(url).rstrip("/")


Region = Annotated[str, StringConstraints(max_length=40, pattern=r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$")]
RoleArn = Annotated[
    str,
    StringConstraints(max_length=2048, pattern=r"^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,576}$"),
]
PolicyArn = Annotated[
    str,
    StringConstraints(max_length=2048, pattern=r"^arn:aws(-[a-z]+)*:iam::(aws|[0-9]{12}):policy/[A-Za-z0-9+=,.@_/-]+$"),
]
TagKey = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\w .:/=+@-]+$")]
TagValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[\w .:/=+@-]*$")]


class Settings(Base):
    """One region's STS, and how we prove ourselves to it: by our own JWT-SVID, or by the keys of an IAM user."""

    kind: Literal["aws"]
    region: Region
    endpoint: Annotated[str, parsed_by(check_endpoint)] | None = None
    tls_ca: Path | None = None
    authentication: Literal["web-identity", "keys"] = "web-identity"
    audience: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")] = (
        "sts.amazonaws.com"
    )
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len({self.access_key is None, self.secret_key is None, self.authentication == "web-identity"}) > 1:
            raise ValueError("`access_key` and `secret_key` go with `authentication: keys`, and only with it")
        if self.authentication == "keys" and "audience" in self.model_fields_set:
            raise ValueError("`audience` is whom our JWT-SVID is made for: it goes with `authentication: web-identity`")
        return self

    @property
    def url(self) -> str:
        """Where the region's STS answers."""
        suffix = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        return self.endpoint or f"https://sts.{self.region}.{suffix}"


class RoleSettings(Base):
    """What a role of such a target says: whom to become, and less of it.

    A `policy` (as IAM writes one) and `policy_arns` only take away from what the role may do. `tags`, `source_identity`
    and `external_id` are told by us with `authentication: keys`; with a JWT-SVID AWS takes them from the token alone.
    """

    role_arn: RoleArn
    policy: dict[str, Any] | None = None
    policy_arns: Annotated[tuple[PolicyArn, ...], Field(max_length=10)] = ()
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=50, default_factory=dict)]
    source_identity: bool = False
    external_id: (
        Annotated[str, StringConstraints(min_length=2, max_length=1224, pattern=r"^[A-Za-z0-9_+=,.@:/-]+$")] | None
    ) = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.policy is not None:
            text = self.policy_text() or ""
            if not self.policy or len(text) > _POLICY_LENGTH or not _POLICY.fullmatch(text):
                raise ValueError(f"a `policy` is at most {_POLICY_LENGTH} characters of JSON, none beyond U+00FF")
            if self.policy.get("Version") != "2012-10-17" or not isinstance(self.policy.get("Statement"), (list, dict)):
                raise ValueError('a `policy` has `Version: "2012-10-17"` and a `Statement`')
        if any(key.lower().startswith("aws:") for key in self.tags):
            raise ValueError("a tag must not begin with `aws:`")
        return self

    def policy_text(self) -> str | None:
        """The session policy as it is sent."""
        return None if self.policy is None else json.dumps(self.policy, separators=(",", ":"), ensure_ascii=False)

    @property
    def told(self) -> bool:
        """Whether it says what only keys may say."""
        return bool(self.tags or self.source_identity or self.external_id)


def role_settings(role: Role, settings: Settings | None = None) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    if not SHORTEST + ON_THE_WAY <= role.ttl <= LONGEST:
        raise Malformed(
            f"the role `{role.full_name}` needs a `ttl` of 16m to 1h: AWS gives nothing shorter than 15 minutes,"
            " and takes nothing back"
        )
    try:
        said = RoleSettings.model_validate_json(json.dumps(dict(role.settings)))
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` needs `role_arn`, and may have `policy`, `policy_arns`, `tags`,"
            " `source_identity` and `external_id`"
        ) from error
    if said.told and settings is not None and settings.authentication == "web-identity":
        raise Malformed(
            f"the role `{role.full_name}` says `tags`, `source_identity` or `external_id`:"
            " AWS takes these only with `authentication: keys`"
        )
    return said
