"""TokenRequest, and what it answers, read strictly.

That a token is bound to our Secret is what its end stands on. An API that overlooks the binding would give one that
nothing takes back: so what the token says of itself is read, and one that says less than was asked is given to nobody.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.engines.kubernetes.anchor import Anchor, object_name
from broker.engines.kubernetes.settings import RoleSettings
from broker.errors import OutcomeUnknown
from ca.errors import Denied, Malformed, NotFound, Unavailable
from ca.runtime.fetch import parse_json
from ca.runtime.kubernetes import Kubernetes, Object, segment
from ca.runtime.secret import Secret

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,4096}\.([A-Za-z0-9_-]{1,12288})\.[A-Za-z0-9_-]{1,4096}")
_SLACK = timedelta(seconds=60)
"""For clocks that differ."""


class TokenRefused(Denied):
    """The cluster does not give us such a token."""

    code = "token-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One that is bound."""

    value: Secret = field(repr=False)
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for: `name` is the principal's, `life` how long it lives."""

    namespace: str
    name: str
    anchor: Anchor
    said: RoleSettings
    life: timedelta

    def body(self) -> Object:
        """As `authentication.k8s.io/v1` writes it."""
        bound = {"apiVersion": "v1", "kind": "Secret", "name": object_name(self.name), "uid": self.anchor.uid}
        spec = {
            "audiences": list(self.said.audiences),
            "expirationSeconds": int(self.life.total_seconds()),
            "boundObjectRef": bound,
        }
        return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


async def request(api: Kubernetes, wanted: Wanted, now: datetime) -> Token:
    """Raises TokenRefused, OutcomeUnknown, Unavailable: it answers something that is no such token."""
    where = f"/api/v1/namespaces/{segment(wanted.namespace)}/serviceaccounts/{segment(wanted.said.service_account)}"
    try:
        answer = await api.post(f"{where}/token", wanted.body())
    except NotFound as error:
        raise TokenRefused(f"there is no service account `{wanted.said.service_account}` in the namespace") from error
    except (Denied, Malformed) as error:
        raise TokenRefused(f"the cluster gives no token of `{wanted.said.service_account}`: {error}") from error
    except Unavailable as error:
        raise OutcomeUnknown(f"it is not known whether the Kubernetes API heard: {error}") from error
    return read(answer, wanted, now)


def read(answer: Object, wanted: Wanted, now: datetime) -> Token:
    """The token of an answer. Raises Unavailable."""
    status = answer.get("status")
    text = status.get("token") if isinstance(status, dict) else None
    found = _TOKEN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Unavailable("the Kubernetes API answers a token request without a token")
    claims = _claims(found[1])
    bound = claims.get("kubernetes.io")
    secret = bound.get("secret") if isinstance(bound, dict) else None
    if not isinstance(secret, dict) or secret.get("uid") != wanted.anchor.uid:
        raise Unavailable("the cluster gives a token that is not bound to what would end it, and nobody was given it")
    if claims.get("sub") != f"system:serviceaccount:{wanted.namespace}:{wanted.said.service_account}":
        raise Unavailable("the cluster gives a token of another service account, and nobody was given it")
    if wanted.said.audiences and set(_audiences(claims)) != set(wanted.said.audiences):
        raise Unavailable("the cluster gives a token for other audiences, and nobody was given it")
    return Token(value=Secret(found[0]), ends_at=_end(claims, now, now + wanted.life + _SLACK))


def _claims(part: str) -> dict[str, Any]:
    try:
        claims = parse_json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError as error:
        raise Unavailable("the Kubernetes API answers with a token that can't be read") from error
    if not isinstance(claims, dict):
        raise Unavailable("the Kubernetes API answers with a token that can't be read")
    return claims


def _audiences(claims: dict[str, Any]) -> list[str]:
    said = claims.get("aud")
    return [one for one in ([said] if isinstance(said, str) else said or []) if isinstance(one, str)]


def _end(claims: dict[str, Any], now: datetime, latest: datetime) -> datetime:
    said = claims.get("exp")
    if not isinstance(said, int) or isinstance(said, bool) or not now.timestamp() < said <= latest.timestamp():
        raise Unavailable("the cluster gives a token that lives longer than was asked, or has ended")
    return datetime.fromtimestamp(said, UTC)
