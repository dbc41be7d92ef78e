"""Tokens as a Kubernetes API server signs them for pods, RS256 or ES256, honest or as crooked as asked."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

Algorithm = Literal["RS256", "ES256"]


class TokenSigner:
    """One issuer and its key."""

    def __init__(self, issuer: str, algorithm: Algorithm = "RS256", key_id: str = "key-1") -> None:
        self.issuer, self.algorithm, self.key_id = issuer, algorithm, key_id
        self.key: RSAKey | ECKey
        if algorithm == "RS256":
            self.key = RSAKey.import_key(rsa.generate_private_key(public_exponent=65537, key_size=2048))
        else:
            self.key = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))

    def jwks(self) -> dict[str, Any]:
        """The key as it is published."""
        public = self.key.as_dict(private=False)
        return {"keys": [{**public, "kid": self.key_id, "alg": self.algorithm, "use": "sig"}]}

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """A token that says exactly this."""
        said = {"alg": self.algorithm, "kid": self.key_id, **(header or {})}
        return jwt.encode(said, dict(claims), self.key, algorithms=[self.algorithm])

    def verify(self, token: str) -> dict[str, Any]:
        """What a token of this key says; raises what joserfc raises."""
        return dict(jwt.decode(token, self.key, algorithms=[self.algorithm]).claims)


def pod_claims(
    issuer: str,
    pod: Mapping[str, Any],
    audience: Sequence[str],
    now: datetime,
    ttl: timedelta = timedelta(minutes=10),
) -> dict[str, Any]:
    """The claims of a token projected into `pod`."""
    meta, account = pod["metadata"], pod["spec"]["serviceAccountName"]
    return {
        "iss": issuer,
        "sub": f"system:serviceaccount:{meta['namespace']}:{account}",
        "aud": list(audience),
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int((now + ttl).timestamp()),
        "jti": str(uuid.uuid4()),
        "kubernetes.io": {
            "namespace": meta["namespace"],
            "serviceaccount": {"name": account, "uid": str(uuid.uuid4())},
            "pod": {"name": meta["name"], "uid": meta["uid"]},
            "node": {"name": pod["spec"].get("nodeName")},
        },
    }
