"""WIT-SVIDs (WIT-SVID.md): a token that names a workload *and its key*, worth nothing without proof of that key.

So there are two types and no way from the one to the other but through `ca.spiffe.proof`: `UnprovenWit` is what a token
says and a key of its trust domain signed, and it holds no identity; it can't be mistaken for a peer. `WitSvid` is one's
own, with its private key. Who stands at the other end is known to `proof.verify` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from ca.errors import Malformed
from ca.spiffe import jose, jwk, strict_json
from ca.spiffe.bundle import BundleSet, PublicKey
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId, TrustDomain

__all__ = ["TYPE", "UnprovenWit", "WitKey", "WitSvid", "check"]

TYPE = "wit+jwt"
_WHAT = "a WIT-SVID"
_LONGEST_KEY = 16 * 1024
_ABOUT = frozenset({"alg", "key_ops", "kid", "use"})

WitKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class UnprovenWit:
    """What a token says about a workload that has not shown that it is that workload.

    `subject` is a text for a log. `algorithm` is the only one a proof may be signed with, by the private half of `key`.
    """

    subject: str
    trust_domain: TrustDomain
    key: PublicKey = field(repr=False)
    algorithm: str
    expires_at: datetime
    claims: Mapping[str, Any] = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Read:
    id: SpiffeId
    wit: UnprovenWit
    algorithm: str
    key_id: str
    not_before: datetime | None


def check(token: str, bundles: BundleSet, now: datetime) -> UnprovenWit:
    """What `token` says at the time `now`, signed by its trust domain and proven by nobody.

    Raises:
        Malformed: it is no JWS in compact form, or its JSON can't be read.
        Untrusted: it breaks a rule of WIT-SVID.md, is out of its time, or no key of its own trust domain signed it.
    """
    read = _read(token)
    domain = read.id.trust_domain
    bundle = bundles.get(domain)
    if bundle is None:
        raise Untrusted(f"no bundle is known for the trust domain `{domain}` of `{read.id}`")
    key = bundle.wit_authorities.get(read.key_id)
    if key is None:
        raise Untrusted(f"the bundle of `{domain}` has no WIT authority with the token's `kid`")
    if not jose.signed_by(token, read.algorithm, key):
        raise Untrusted(f"the token of `{read.id}` is not signed by the key of `{domain}` that it names")
    if now - jose.LEEWAY >= read.wit.expires_at:
        raise Untrusted(f"the token of `{read.id}` expired at {read.wit.expires_at:%Y-%m-%dT%H:%M:%SZ}")
    if read.not_before is not None and now + jose.LEEWAY < read.not_before:
        raise Untrusted(f"the token of `{read.id}` is not valid before {read.not_before:%Y-%m-%dT%H:%M:%SZ}")
    return read.wit


@dataclass(frozen=True, slots=True, kw_only=True)
class WitSvid:
    """One's own identity: the token, and the key with which each showing of it is proven."""

    id: SpiffeId
    algorithm: str
    expires_at: datetime
    token: str = field(repr=False)
    private_key: WitKey = field(repr=False)
    hint: str = ""

    @classmethod
    def parse(cls, token: str, key_jwk: str, hint: str = "") -> WitSvid:
        """Read what the Workload API hands over: the token, and its private key as a JWK in JSON.

        Raises:
            Malformed: not readable, or the key is not the one the token names.
            Untrusted: the token breaks a rule of WIT-SVID.md, so no peer would accept it.
        """
        return cls.of(token, _private_key(key_jwk), hint)

    @classmethod
    def of(cls, token: str, private_key: WitKey, hint: str = "") -> WitSvid:
        """Put a token and its key together. Raises as `parse` does."""
        read = _read(token)
        if private_key.public_key() != read.wit.key:
            raise Malformed(f"the private key is not the one that the token of `{read.id}` names")
        return cls(
            id=read.id,
            algorithm=read.wit.algorithm,
            expires_at=read.wit.expires_at,
            token=token,
            private_key=private_key,
            hint=hint,
        )

    def key_jwk(self) -> str:
        """The private key as the Workload API carries it: for memory only."""
        key = self.private_key
        made = ECKey.import_key(key) if isinstance(key, ec.EllipticCurvePrivateKey) else RSAKey.import_key(key)
        members = {name: value for name, value in made.as_dict(private=True).items() if name != "kid"}
        return json.dumps({**members, "alg": self.algorithm}, separators=(",", ":"))


def _read(token: str) -> _Read:
    header, claims = jose.take_apart(token, _WHAT)
    algorithm, key_id = _check_header(header)
    try:
        spiffe_id = SpiffeId.parse(jose.text_of(claims, "sub"))
    except Malformed as error:
        raise Untrusted(f"the token's `sub` is not a SPIFFE ID: {error}") from error
    if "aud" in claims:
        raise Untrusted("the token has an `aud`, which belongs into its proof and never into a WIT-SVID")
    for claim in {"iat"} & claims.keys():
        jose.moment_of(claims, claim)
    key, proof_algorithm = _confirmation(claims)
    wit = UnprovenWit(
        subject=str(spiffe_id),
        trust_domain=spiffe_id.trust_domain,
        key=key,
        algorithm=proof_algorithm,
        expires_at=jose.moment_of(claims, "exp"),
        claims=MappingProxyType(claims),
        token=token,
    )
    return _Read(spiffe_id, wit, algorithm, key_id, jose.moment_of(claims, "nbf") if "nbf" in claims else None)


def _check_header(header: Mapping[str, Any]) -> tuple[str, str]:
    """Members nobody knows are ignored, but those a signer calls critical are not: none is known here."""
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in jose.ALGORITHMS:
        raise Untrusted("the token's `alg` is not one of the nine a WIT-SVID may have")
    if header.get("typ") != TYPE:
        raise Untrusted(f"the token's `typ` is not `{TYPE}`")
    if not isinstance(key_id, str) or not key_id:
        raise Untrusted("the token has no `kid`")
    if "crit" in header:
        raise Untrusted("the token's header has a critical member that is not known here")
    return algorithm, key_id


def _confirmation(claims: Mapping[str, Any]) -> tuple[PublicKey, str]:
    """The workload's public key and the algorithm of its proofs (WIT-SVID.md 3.2)."""
    confirmation = claims.get("cnf")
    element = confirmation.get("jwk") if isinstance(confirmation, dict) else None
    if not isinstance(element, dict):
        raise Untrusted("the token has no `cnf` with a `jwk`")
    if jwk.shows_private(element):
        raise Untrusted("the token's `cnf` shows a private key, so whoever reads it could prove it")
    key, algorithm = jwk.read_key(element), element.get("alg")
    if key is None:
        raise Untrusted("the token's `cnf` holds no key that can prove anything")
    if not isinstance(algorithm, str) or algorithm not in jwk.algorithms_of(key):
        raise Untrusted("the token's `cnf` has no `alg` that goes with its key and is one of the nine")
    return key, algorithm


def _private_key(key_jwk: str) -> WitKey:
    what = "the private key of a WIT-SVID"
    members = strict_json.read_object(key_jwk.encode("utf-8", "surrogatepass"), what, _LONGEST_KEY)
    kind = ECKey if members.get("kty") == "EC" else RSAKey
    try:
        key = kind.import_key({k: v for k, v in members.items() if k not in _ABOUT}).private_key
    except (JoseError, ValueError, TypeError, KeyError):
        raise Malformed(f"{what} is not a JWK of an elliptic curve or RSA key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or not jwk.fits(key.public_key()):
        raise Malformed(f"{what} is not a private key that can prove anything")
    return key
