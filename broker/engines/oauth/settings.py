"""What an operator says about an OAuth 2.0 server."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from broker.model.role import Role
from broker.model.value import check_value_name
from ca.errors import Malformed
from ca.runtime.fetch import parse_url
from ca.runtime.settings import Duration, SecretReference, parsed_by
from ca.runtime.settings import Settings as Base

Url = Annotated[str, parsed_by(lambda text: str(parse_url(text)) and text)]
"""An `https` address, kept as it was written: an issuer is compared letter by letter (RFC 8414, 3.3)."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]
ScopeToken = Annotated[str, StringConstraints(max_length=100, pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
"""RFC 6749, 3.3."""

Grant = Literal["client_credentials", "token_exchange", "refresh_token"]


class Settings(Base):
    """One server, as one client of it.

    Its endpoints are found by `issuer` (RFC 8414), or said one by one. `ends` is what its revocation is worth:
    `at-once` when whoever takes its tokens asks it about each, `at-expiry` when they are judged by their signature.
    """

    kind: Literal["oauth"]
    issuer: Url | None = None
    token_endpoint: Url | None = None
    revocation_endpoint: Url | None = None
    introspection_endpoint: Url | None = None
    client_id: Text
    authentication: Literal["private_key_jwt", "client_secret_basic"] = "private_key_jwt"
    client_secret: SecretReference | None = None
    tls_ca: Path | None = None
    ends: Literal["at-expiry", "at-once"] = "at-expiry"
    longest_token: Duration | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        said = [self.token_endpoint, self.revocation_endpoint, self.introspection_endpoint]
        if (self.issuer is None) == (self.token_endpoint is None) or (self.issuer is not None and any(said)):
            raise ValueError("expected either `issuer` or `token_endpoint` with the other endpoints")
        if self.issuer is not None and "?" in self.issuer:
            raise ValueError("an `issuer` has no query")
        if (self.client_secret is not None) != (self.authentication == "client_secret_basic"):
            raise ValueError("`client_secret` goes with `authentication: client_secret_basic`, and only with it")
        if self.ends == "at-once" and self.issuer is None and self.revocation_endpoint is None:
            raise ValueError("`ends: at-once` needs a `revocation_endpoint`")
        if self.longest_token is not None and (self.ends == "at-expiry" or self.longest_token <= timedelta(0)):
            raise ValueError("`longest_token` goes with `ends: at-once`; otherwise a role's `ttl` is the longest")
        return self


class RoleSettings(Base):
    """What a role of such a target says: how a token is asked for, and for what.

    `value` names the refresh token an operator put, for the grant of that name; left out: the role's own name.
    `subject_audience` is whom our own JWT-SVID is made for when it is exchanged; left out: the issuer.
    """

    grant: Grant = "client_credentials"
    scope: Annotated[tuple[ScopeToken, ...], Field(max_length=50)] = ()
    resource: Annotated[tuple[Url, ...], Field(max_length=10)] = ()
    audience: Text | None = None
    subject_audience: Text | None = None
    requested_token_type: Literal["access_token", "jwt"] = "access_token"  # noqa: S105 - a kind, not a secret
    value: Annotated[str, parsed_by(check_value_name)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        exchanged = self.subject_audience is not None or self.requested_token_type != "access_token"  # noqa: S105
        if exchanged and self.grant != "token_exchange":
            raise ValueError("`subject_audience` and `requested_token_type` are for `grant: token_exchange`")
        if self.value is not None and self.grant != "refresh_token":
            raise ValueError("`value` is for `grant: refresh_token`")
        return self


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    try:
        return RoleSettings.model_validate_json(json.dumps(dict(role.settings)))
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` may have `grant`, `scope`, `resource`, `audience` and what its grant needs"
        ) from error
