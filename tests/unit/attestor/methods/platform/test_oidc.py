"""Tokens of CI jobs, by an issuer over TLS."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import OctKey

from attestor.errors import NotProven
from attestor.instance import Strength
from attestor.methods.platform.oidc import IssuerSettings
from attestor.methods.platform.subjects import SubjectPattern
from attestor.selector import texts
from ca.errors import Malformed, Unavailable
from ca.runtime.document import BadSettings
from ca.runtime.settings import loads
from fakes.clock import ManualClock
from fakes.issuers import SUBJECT, FakeIssuer, platform
from fakes.service_accounts import TokenSigner


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_jobs_token_says_which_job(tmp_path: Path, algorithm: Any) -> None:
    """Of its claims only those the settings list; nothing outlives it."""
    clock = ManualClock()
    async with platform(tmp_path, clock, algorithm) as (issuer, one):
        proven = await one.verify(issuer.token(), clock.now())
        assert texts(proven.selectors) == [
            "oidc:issuer:ci",
            "oidc:protected:true",
            "oidc:repository:acme/app",
            "oidc:run:7",
            f"oidc:sub:{SUBJECT}",
        ]
        assert texts(proven.place) == ["node:direct", "node:issuer:ci", "node:method:oidc"]
        assert (proven.expires_at - clock.now()).total_seconds() == 600
        assert proven.strength is Strength.OWN_UID


def _forged(issuer: FakeIssuer) -> str:
    other = TokenSigner(issuer.signer.issuer, issuer.signer.algorithm)
    issuer.signer, genuine = other, issuer.signer
    token = issuer.token()
    issuer.signer = genuine
    return token


def _unsigned(issuer: FakeIssuer) -> str:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "key-1"}).encode()).rstrip(b"=").decode()
    return f"{header}.{issuer.token().split('.')[1]}."


def _hmac_with_the_public_key(issuer: FakeIssuer) -> str:
    """The classic confusion of algorithms: the public key, which everybody has, as a shared secret."""
    private = issuer.signer.key.raw_value
    assert isinstance(private, rsa.RSAPrivateKey)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = json.loads(base64.urlsafe_b64decode(issuer.token().split(".")[1] + "=="))
    return jwt.encode({"alg": "HS256", "kid": "key-1"}, claims, OctKey.import_key(base64.b64encode(pem)), ["HS256"])


def _cut(issuer: FakeIssuer) -> str:
    head, body, signature = issuer.token().split(".")
    return f"{head}.{body}.{signature[:-4]}AAAA"


WRONG: dict[str, Callable[[FakeIssuer], str]] = {
    "another key of the same id": _forged,
    "no signature": _unsigned,
    "a shared secret": _hmac_with_the_public_key,
    "a changed signature": _cut,
    "unknown key": lambda issuer: issuer.token({"kid": "other"}),
    "no key named": lambda issuer: issuer.token({"kid": ""}),
    "a key in the header": lambda issuer: issuer.token({"jwk": issuer.signer.jwks()["keys"][0]}),
    "an address of keys in the header": lambda issuer: issuer.token({"jku": "https://127.0.0.1/"}),
    "another type": lambda issuer: issuer.token({"typ": "secevent+jwt"}),
    "another issuer": lambda issuer: issuer.token(iss="https://other.example"),
    "issuer with a slash": lambda issuer: issuer.token(iss=issuer.signer.issuer + "/"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "another audience": lambda issuer: issuer.token(aud="other"),
    "an audience that begins like ours": lambda issuer: issuer.token(aud=["sojourn2"]),
    "no audience": lambda issuer: issuer.token(aud=None),
    "audience of another type": lambda issuer: issuer.token(aud={"sojourn": 1}),
    "expired": lambda issuer: issuer.token(exp=1),
    "no end": lambda issuer: issuer.token(exp=None),
    "an end that is a text": lambda issuer: issuer.token(exp="9999999999"),
    "an end that is true": lambda issuer: issuer.token(exp=True),
    "no beginning": lambda issuer: issuer.token(iat=None),
    "issued in the future": lambda issuer: issuer.token(iat=4_000_000_000, exp=4_000_000_100),
    "not yet": lambda issuer: issuer.token(nbf=4_000_000_000),
    "without end": lambda issuer: issuer.token(exp=4_000_000_000),
    "another subject": lambda issuer: issuer.token(sub="repo:evil/app:ref:refs/heads/main"),
    "subject with more segments": lambda issuer: issuer.token(sub="repo:acme/app:ref:refs/heads/main/x"),
    "no subject": lambda issuer: issuer.token(sub=None),
    "no token": lambda _: "x",
    "two parts": lambda _: "a.b",
    "too long": lambda _: "a." + "b" * 20_000 + ".c",
    "no JSON": lambda _: "e30.bm90IGpzb24.e30",
    "a claim with a line break": lambda issuer: issuer.token(repository="a\nb"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_whatever_is_wrong_is_refused(tmp_path: Path, wrong: str) -> None:
    """By the same exception."""
    clock = ManualClock()
    async with platform(tmp_path, clock) as (issuer, one):
        with pytest.raises(NotProven):
            await one.verify(WRONG[wrong](issuer), clock.now())


async def test_an_algorithm_must_fit_the_key(tmp_path: Path) -> None:
    """A set whose key is meant for another, or of another kind."""
    clock = ManualClock()
    async with platform(tmp_path, clock, "ES256", algorithms=("ES256", "RS256", "ES384")) as (issuer, one):
        issuer.jwks = lambda found: {"keys": [{**found["keys"][0], "alg": "ES384"}]}
        with pytest.raises(NotProven, match="no key"):
            await one.verify(issuer.token(), clock.now())
    async with platform(tmp_path, clock, "ES256", algorithms=("RS256",)) as (issuer, one):
        with pytest.raises(NotProven, match="`alg`"):
            await one.verify(issuer.token(), clock.now())


async def test_keys_are_kept_and_asked_for_politely(tmp_path: Path) -> None:
    """Invented key ids don't make us hammer the issuer; a new key is found soon; an outage is bridged, for a time."""
    clock = ManualClock()
    async with platform(tmp_path, clock) as (issuer, one):
        for _ in range(5):
            await one.verify(issuer.token(), clock.now())
        assert issuer.fetched == 1
        for number in range(5):
            with pytest.raises(NotProven):
                await one.verify(issuer.token({"kid": f"invented-{number}"}), clock.now())
        assert issuer.fetched == 1
        issuer.signer.key_id = "key-2"
        await clock.advance(11)
        await one.verify(issuer.token(), clock.now())
        assert issuer.fetched == 2
        issuer.status = 500
        await clock.advance(3600)
        await one.verify(issuer.token(), clock.now())
        await clock.advance(6 * 3600)
        with pytest.raises(Unavailable):
            await one.verify(issuer.token(), clock.now())
        issuer.status = 200
        await clock.advance(301)
        await one.verify(issuer.token(), clock.now())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"issuer": "https://other"},
        {"jwks_uri": 5},
        {"jwks_uri": "http://127.0.0.1/keys"},
        {"jwks_uri": "file:///x"},
    ],
)
async def test_a_discovery_document_of_another_issuer_is_not_followed(tmp_path: Path, document: dict[str, Any]) -> None:
    """Nor one that leads off https."""
    clock = ManualClock()
    async with platform(tmp_path, clock) as (issuer, one):
        issuer.document = lambda found: {**found, **document} if document else {}
        with pytest.raises(Unavailable):
            await one.verify(issuer.token(), clock.now())


async def test_junk_in_a_key_set_is_passed_over(tmp_path: Path) -> None:
    """Symmetric, private, for encryption, without id, of no kind: none of them verifies anything."""
    clock = ManualClock()
    async with platform(tmp_path, clock) as (issuer, one):
        private = issuer.signer.key.as_dict(private=True)
        junk = [5, {}, {"kty": "oct", "k": "AAAA", "kid": "key-1"}, {**private, "kid": "key-1"}]
        issuer.jwks = lambda found: {"keys": [*junk, {**found["keys"][0], "use": "enc"}]}
        with pytest.raises(NotProven, match="no key"):
            await one.verify(issuer.token(), clock.now())
        issuer.jwks = lambda found: {"keys": [*junk, *found["keys"]]}
        await clock.advance(11)
        await one.verify(issuer.token(), clock.now())


@pytest.mark.parametrize(
    ("pattern", "subject", "good"),
    [
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/app:ref:refs/heads/main", True),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/a/b:ref:refs/heads/main", False),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/app:ref:refs/heads/main2", False),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/:ref:refs/heads/main", False),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme:app:ref:refs/heads/main", False),
        ("repo:acme/app:**", "repo:acme/app:ref:refs/tags/v1", True),
        ("repo:acme/app:**", "repo:acme/app", False),
        ("repo:acme/app:**", "repo:acme/app/x", False),
        ("repo:acme/app:**", "repo:acme/app2:ref", False),
        ("repo:acme/app", "REPO:acme/app", False),
        ("repo:acme/app", "repo:acme/app\n", False),
        ("repo:acme/*", "repo:acme/*", True),
    ],
)
def test_a_pattern_counts_segments(pattern: str, subject: str, good: bool) -> None:  # noqa: FBT001
    """And a separator is what it is."""
    assert SubjectPattern.parse(pattern).matches(subject) is good


@pytest.mark.parametrize("pattern", ["", "*", "**", "*:*", "*/*", "repo:ac*:x", "repo:**:x", "a::b", "a/", "/a", "a\n"])
def test_a_pattern_that_is_anybodys_is_refused(pattern: str) -> None:
    """Or one that can't be meant."""
    with pytest.raises(Malformed):
        SubjectPattern.parse(pattern)


@pytest.mark.parametrize(
    "text",
    [
        "{name: ci, issuer: 'http://x', subjects: ['a']}",
        "{name: ci, issuer: 'https://x', subjects: []}",
        "{name: CI, issuer: 'https://x', subjects: ['a']}",
        "{name: ci, issuer: 'https://x', subjects: ['a'], algorithms: [HS256]}",
        "{name: ci, issuer: 'https://x', subjects: ['a'], algorithms: [none]}",
        "{name: ci, issuer: 'https://x', subjects: ['a'], claims: [sub]}",
        "{name: ci, issuer: 'https://x', subjects: ['a'], claims: ['a:b']}",
    ],
)
def test_settings_that_would_let_others_in_are_refused(text: str) -> None:
    """When they are read."""
    with pytest.raises(BadSettings):
        loads(text, "settings", IssuerSettings)
