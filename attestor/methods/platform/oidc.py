"""Tokens of CI systems by OpenID Connect: the issuer pinned, the subject by pattern, claims into selectors.

    oidc:issuer:github  oidc:sub:repo:acme/app:ref:refs/heads/main     always
    oidc:repository:acme/app                                           claims the settings list

A token is one job's. It is verified here by the issuer's keys, so it holds until it ends: nobody can be asked whether
the job still runs. What is given for it ends with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64decode
from pydantic import Field

from attestor.errors import NotProven
from attestor.instance import Strength
from attestor.methods.platform.keyset import IssuerKey, KeySet
from attestor.methods.platform.protocol import LONGEST_TOKEN, Proven, short, token_id
from attestor.methods.platform.subjects import SubjectPattern
from attestor.selector import Selector, Selectors
from ca.errors import Malformed
from ca.runtime.fetch import parse_url
from ca.runtime.settings import Settings, parsed_by
from ca.spiffe import strict_json

METHOD = "oidc"
LEEWAY = timedelta(seconds=5)
LONGEST_LIFE = timedelta(days=1)
"""Of a token: one that claims to live longer is not a job's."""

_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_FORBIDDEN_HEADERS = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip"})
_LATEST = 253_402_300_799


def _issuer(text: str) -> str:
    if parse_url(text).query_string:
        raise Malformed("an issuer is an address without a query")
    return text


def _claim(text: str) -> str:
    if not 0 < len(text) <= 64 or not text.isascii() or not text.replace("_", "a").isalnum():
        raise Malformed("the name of a claim must be letters, digits and `_`")
    if text in {"issuer", "sub"}:
        raise Malformed(f"`oidc:{text}` is always said, and by no claim")
    return text


class IssuerSettings(Settings):
    """One issuer whose tokens are taken."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$")]
    issuer: Annotated[str, parsed_by(_issuer)]
    """Exactly as its tokens' `iss` has it."""
    audience: Annotated[str, Field(min_length=1)] = "sojourn"
    node_audience: Annotated[str, Field(min_length=1)] = "sojourn-node"
    """For tokens that prove a node, where `node_methods.oidc` names the issuer."""
    subjects: Annotated[tuple[Annotated[SubjectPattern, parsed_by(SubjectPattern.parse)], ...], Field(min_length=1)]
    claims: tuple[Annotated[str, parsed_by(_claim)], ...] = ()
    """Those that become selectors."""
    algorithms: Annotated[
        tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"], ...],
        Field(min_length=1),
    ] = ("RS256", "ES256")
    ca_file: Path | None = None
    """PEM certificates its server is known by; left out: the system's roots."""
    private: bool = False
    """Whether its server may be on a private network."""


class Platform:
    """Tokens of one issuer."""

    def __init__(self, settings: IssuerSettings, keys: KeySet) -> None:
        self.settings, self._keys = settings, keys

    async def verify(self, token: str, now: datetime) -> Proven:
        """The job it was made for. Raises NotProven, Unavailable."""
        claims = await self.read(token, self.settings.audience, now)
        name = self.settings.name
        place = {"direct", f"method:{METHOD}", f"issuer:{name}"}
        return Proven(
            subject=f"{METHOD}/{name}/{token_id(token)}",
            selectors=self.selectors(claims),
            place=frozenset(Selector("node", one) for one in place),
            token_id=token_id(token),
            expires_at=_moment(claims, "exp"),
            strength=Strength.OWN_UID,
        )

    def seems_gone(self, subject: str) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Nothing is watched."""
        return False

    async def is_gone(self, subject: str) -> bool:  # noqa: ARG002 -- the protocol's signature
        """Nobody can say."""
        return False

    async def read(self, token: str, audience: str, now: datetime) -> Mapping[str, Any]:
        """What the token says, proven. Raises NotProven, Unavailable."""
        header, claims = _segments(token)
        algorithm, key_id = self._header(header)
        if claims.get("iss") != self.settings.issuer:
            raise NotProven(f"the token is not one of the issuer `{self.settings.name}`")
        for key in await self._keys.find(key_id):
            if _fits(key, algorithm) and _signed(token, key, algorithm):
                break
        else:
            raise NotProven(f"no key of the issuer `{self.settings.name}` signed this token")
        self._check(claims, audience, now)
        return claims

    def selectors(self, claims: Mapping[str, Any]) -> Selectors:
        """What is known of the job; a claim that is no plain value is left out."""
        said = [("issuer", self.settings.name), ("sub", claims["sub"])]
        said += [(name, claims[name]) for name in self.settings.claims if name in claims]
        found = set()
        for name, value in said:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if isinstance(value, str | int) and text:
                try:
                    found.add(Selector.parse(f"{METHOD}:{name}:{text}"))
                except Malformed as error:
                    raise NotProven(f"the token's `{name}` can't be a selector") from error
        return frozenset(found)

    def _header(self, header: Mapping[str, Any]) -> tuple[str, str]:
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in self.settings.algorithms:
            raise NotProven("the token's `alg` is not one this issuer may use")
        if not isinstance(key_id, str) or not key_id:
            raise NotProven("the token does not say which key signed it")
        if header.keys() & _FORBIDDEN_HEADERS or header.get("typ", "JWT") not in {"JWT", "jwt"}:
            raise NotProven("the token's header holds what a job's token has no use for")
        return str(algorithm), key_id

    def _check(self, claims: Mapping[str, Any], audience: str, now: datetime) -> None:
        said = claims.get("aud")
        if audience not in ([said] if isinstance(said, str) else said if isinstance(said, list) else []):
            raise NotProven("the token is meant for another audience")
        begun, ends = _moment(claims, "iat"), _moment(claims, "exp")
        if now >= ends + LEEWAY:
            raise NotProven("the token has expired")
        if now < begun - LEEWAY or ("nbf" in claims and now < _moment(claims, "nbf") - LEEWAY):
            raise NotProven("the token is not valid yet")
        if ends - begun > LONGEST_LIFE:
            raise NotProven("the token lives too long for a job's")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not any(one.matches(subject) for one in self.settings.subjects):
            raise NotProven(f"the subject `{short(subject)}` is not one the settings allow")


def _segments(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = token.split(".")
    if len(parts) != 3 or not all(parts) or not token.isascii() or len(token) > LONGEST_TOKEN:
        raise NotProven("this is not a token: expected a JWS in compact form")
    try:
        header, payload = (urlsafe_b64decode(part.encode()) for part in parts[:2])
        return (
            strict_json.read_object(header, "the token's header", LONGEST_TOKEN),
            strict_json.read_object(payload, "the token's payload", LONGEST_TOKEN),
        )
    except (ValueError, Malformed) as error:
        raise NotProven("this is not a token: it can't be read") from error


def _fits(key: IssuerKey, algorithm: str) -> bool:
    """Whether the key is of the kind the algorithm is for, and not meant for another one."""
    if key.algorithm not in {"", algorithm}:
        return False
    if isinstance(key.key, ec.EllipticCurvePublicKey):
        return _CURVES.get(algorithm) == key.key.curve.name
    return algorithm.startswith(("RS", "PS"))


def _signed(token: str, key: IssuerKey, algorithm: str) -> bool:
    public = key.key
    made = ECKey.import_key(public) if isinstance(public, ec.EllipticCurvePublicKey) else RSAKey.import_key(public)
    try:
        jws.deserialize_compact(token, made, algorithms=[algorithm])
    except (JoseError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _moment(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise NotProven(f"the token has no `{name}` that is a time")
    return datetime.fromtimestamp(value, UTC)
