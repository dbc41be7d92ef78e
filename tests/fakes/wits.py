"""Makes WIT-SVIDs and their proofs for tests: honest ones, and with a word every crooked one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from ca.spiffe import jose, jwk, proof
from ca.spiffe.bundle import Bundle
from ca.spiffe.proof import Beside
from ca.spiffe.witsvid import WitKey, WitSvid
from fakes.pki import NOON, TestAuthority, make_key, sign_token

HERE = "https://server.example.org/orders"


class WitIssuer:
    """The WIT authority of a trust domain, beside its others."""

    def __init__(self, authority: TestAuthority, seed: str | None = None) -> None:
        self.authority = authority
        self.trust_domain = authority.trust_domain
        self.key, self.key_id = make_key(seed and f"{seed} {self.trust_domain} wit"), "wit-1"
        self.holder: WitKey = make_key(seed and f"{seed} {self.trust_domain} holder")

    def bundle(self) -> Bundle:
        """What verifies everything both signed."""
        return replace(self.authority.bundle(), wit_authorities={self.key_id: self.key.public_key()})

    def token(
        self,
        path: str = "/agent",
        *,
        ttl: timedelta = timedelta(minutes=5),
        now: datetime = NOON,
        holder: WitKey | None = None,
        header: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> str:
        """A WIT-SVID; a claim or header of None is left out."""
        said = {
            "sub": f"spiffe://{self.trust_domain}{path}",
            "exp": jose.seconds(now + ttl),
            "iat": jose.seconds(now),
            "cnf": {"jwk": jwk.of_confirmation((holder or self.holder).public_key())},
            **(claims or {}),
        }
        head = {"alg": "ES256", "kid": self.key_id, "typ": "wit+jwt", **(header or {})}
        return sign_token(_without_none(head), _without_none(said), key or self.key)

    def svid(self, path: str = "/agent", **changes: Any) -> WitSvid:
        """An honest one with its key."""
        return WitSvid.of(self.token(path, **changes), changes.get("holder") or self.holder)


def make_proof(
    svid: WitSvid,
    *,
    audience: str = HERE,
    now: datetime = NOON,
    ttl: timedelta = timedelta(seconds=30),
    beside: Beside | None = None,
    header: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> str:
    """A proof for one message; a claim or header of None is left out."""
    head, said = jose.take_apart(proof.mint(svid, audience, now, beside=beside or Beside()), "a proof")
    said |= {"exp": jose.seconds(now + ttl)} | dict(claims or {})
    signer = key or svid.private_key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return sign_token(_without_none(head | dict(header or {})), _without_none(said), signer)


def _without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
