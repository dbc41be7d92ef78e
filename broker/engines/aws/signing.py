"""AWS Signature Version 4: a request that only who has the secret key can have made, good for a few minutes.

Only what we send is signed: `POST` of a form to the path `/`, without a query. Whatever stands in the headers given
here is signed, the host too.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ca.runtime.secret import Secret

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What requests are signed with; `session` is the token that goes with keys of a session."""

    access_key: str
    secret_key: Secret = field(repr=False)
    session: Secret | None = field(default=None, repr=False)


def signed(
    keys: Keys, headers: Mapping[str, str], body: bytes, *, region: str, service: str, now: datetime
) -> dict[str, str]:
    """`headers`, which name the host, with the time, the session and the signature; names come out in lower case."""
    stamp = f"{now:%Y%m%dT%H%M%SZ}"
    said = {name.lower(): " ".join(value.split()) for name, value in headers.items()} | {"x-amz-date": stamp}
    if keys.session is not None:
        said["x-amz-security-token"] = keys.session.reveal()
    names = ";".join(sorted(said))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join((ALGORITHM, stamp, scope, _digest(canonical(said, body).encode())))
    key = signing_key(keys.secret_key, stamp[:8], region, service)
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    said["authorization"] = (
        f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return said


def canonical(headers: Mapping[str, str], body: bytes) -> str:
    """The one way to write a `POST /` with these headers (names in lower case, values trimmed) and this body."""
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    return "\n".join(("POST", "/", "", *lines, "", ";".join(sorted(headers)), _digest(body)))


def signing_key(secret: Secret, day: str, region: str, service: str) -> bytes:
    """The key of one day (`20150830`), region and service."""
    key = b"AWS4" + secret.reveal().encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
